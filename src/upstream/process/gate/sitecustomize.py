"""Has a program on Python wait where it first needs a variable that only its request knows.

Tollbridge starts it before that request, and has Python load this before the program (PYTHONPATH).

TOLLBRIDGE_GATE says on which descriptor such variables come, then their names, all with `=` between them; `?` stands before a
name that the request may leave out. What comes is a record: its length (4 bytes, the highest first), and as many bytes of
variables, each as `NAME=VALUE` with a NUL behind it.

Names are no secret, so what asks for names alone goes on. Once a value has been asked for, all is as if this had never been
loaded. What C code asks the system for (`getenv`) is not seen from here: it finds nothing.
"""

import os
import posix
import stat
import sys
from _thread import RLock

# Programs may replace these.
_close, _exit, _fstat, _read, _write = os.close, os._exit, os.fstat, os.read, os.write
_Environ = type(os.environ)


class Gate:
    """The variables that are not known yet, and what waits for them."""

    def __init__(self, said):
        channel, *names = said.split("=")
        # Whether each will surely be there.
        self.late = {os.fsencode(name.removeprefix("?")): not name.startswith("?") for name in names}
        self.lock = RLock()
        self.undo = []
        # What the system's module has, and what stands in its place.
        self.dicts = []
        self.descriptor = int(channel)
        self.copies_go_without = False
        self.at_start = self.identity()

    def identity(self):
        """Which file the descriptor is: the program may close it, and open another with its number."""
        try:
            status = _fstat(self.descriptor)
            return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None
        except OSError:
            return None

    def tell(self, what):
        """Tells `tollbridge doctor` how far the program came."""
        try:
            if self.at_start is not None and self.identity() == self.at_start:
                _write(self.descriptor, f"{what}\n".encode(errors="replace"))
        except OSError:
            pass

    def read(self, length):
        record = b""
        while len(record) < length:
            more = _read(self.descriptor, length - len(record))
            if not more:
                raise OSError("nothing more comes")
            record += more
        return record

    def receive(self):
        """The variables of the request, as soon as there is one."""
        if self.at_start is None or self.identity() != self.at_start:
            raise OSError("the program has closed the descriptor")
        os.set_blocking(self.descriptor, True)
        record = self.read(int.from_bytes(self.read(4), "big"))
        _close(self.descriptor)
        return [variable.split(b"=", 1) for variable in record.split(b"\0")[:-1]]

    def wait(self, where):
        """Waits for the request."""
        with self.lock:
            if not self.late:
                return
            self.tell(f"waits at {where}")
            try:
                variables = self.receive()
            except OSError as error:
                # Without them it would go on as somebody whom it is not for.
                _write(2, f"the variables of the request cannot be had: {error}\n".encode())
                _exit(1)
            # Unless the program has set it itself.
            given = [(name, value) for name, value in variables if name in self.late]
            # Other threads read meanwhile: what they find is there before it is no longer waited for.
            for name, value in given:
                _Environ.__setitem__(os.environb, name, value)
                for variables in self.dicts:
                    dict.__setitem__(variables, name, value)
            for back in self.undo:
                back()
            self.late.clear()

    def wait_for_name(self, name):
        if self.late.get(name) is False:
            self.wait(f"the question whether there is {os.fsdecode(name)}")

    def wait_for_copy(self):
        self.wait(f"a copy of the environment in {_place()}")

    def goes_without(self):
        """Whether the environment looks as if what is not known were not there: it is copied by a library that is being
        imported."""
        return self.copies_go_without and bool(self.late) and _is_import()

    def names(self):
        """The names that are to be listed beside those that are known."""
        if self.goes_without():
            return []
        if False in self.late.values():
            self.wait(f"a list of the names of variables in {_place()}")
        return list(self.late)

    def replace(self, owner, name, value):
        """Puts `value` there until the request has come."""
        original = getattr(owner, name)
        setattr(owner, name, value)

        def back():
            if getattr(owner, name) is value:
                setattr(owner, name, original)

        self.undo.append(back)

    def wait_in(self, owner, name, where, is_copy=lambda *given, **named: True):
        """Has a function wait that gives the system's own variables to another program."""
        original = getattr(owner, name)

        def waiting(*given, **named):
            if is_copy(*given, **named):
                self.wait(where)
            return original(*given, **named)

        waiting.__name__, waiting.__doc__ = original.__name__, original.__doc__
        self.replace(owner, name, waiting)


def _frames():
    frame = sys._getframe(1)
    while frame:
        yield frame
        frame = frame.f_back


def _is_import():
    return any(frame.f_code.co_filename.startswith("<frozen importlib") for frame in _frames())


def _place():
    """Where the program is, without what belongs to Python itself."""
    own = (__file__, "<frozen", os.__file__)
    for frame in _frames():
        name = frame.f_code.co_filename
        if not name.startswith(own) and not name.endswith("collections/abc.py"):
            return f"{name}:{frame.f_lineno}"
    return "Python itself"


def _late_name(environ, key):
    """The name of a variable that is not known yet."""
    try:
        name = environ.encodekey(key)
    except TypeError:
        return None
    return name if name in gate.late else None


def _wait_for_all():
    """Waits where every value will be asked for."""
    if not gate.goes_without():
        gate.wait_for_copy()


class LateEnviron(_Environ):
    """`os.environ` and `os.environb` until the request has come. Another thread may make it what it was at any step, so it calls
    nothing of its own."""

    def __getitem__(self, key):
        name = _late_name(self, key)
        if name is not None:
            gate.wait(f"the first read of {os.fsdecode(name)}")
        return _Environ.__getitem__(self, key)

    def __contains__(self, key):
        name = _late_name(self, key)
        if name is not None:
            gate.wait_for_name(name)
        return name in gate.late or _Environ.__contains__(self, key)

    def __setitem__(self, key, value):
        _Environ.__setitem__(self, key, value)
        gate.late.pop(self.encodekey(key), None)

    def __delitem__(self, key):
        name = _late_name(self, key)
        if name is None or name in self._data:
            _Environ.__delitem__(self, key)
        gate.late.pop(name, None)

    def __iter__(self):
        names = dict.fromkeys([*self._data, *gate.names()])
        return map(self.decodekey, names)

    def __len__(self):
        return len({*self._data, *gate.names()})

    def __repr__(self):
        gate.wait_for_copy()
        return repr(self)

    def __deepcopy__(self, memo):
        import copy

        gate.wait_for_copy()
        return copy.deepcopy(self, memo)

    def copy(self):
        _wait_for_all()
        return dict(self)

    def items(self):
        _wait_for_all()
        return _Environ.items(self)

    def values(self):
        _wait_for_all()
        return _Environ.values(self)


class LateDict(dict):
    """`posix.environ` until the request has come, from which Python makes the others."""

    def __getitem__(self, name):
        if name in gate.late:
            gate.wait(f"the first read of {os.fsdecode(name)}")
        return dict.__getitem__(self, name)

    def get(self, name, default=None):
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name):
        gate.wait_for_name(name)
        return name in gate.late or dict.__contains__(self, name)

    def __iter__(self):
        return iter(dict.fromkeys([*dict.keys(self), *gate.names()]))

    def __len__(self):
        return len({*dict.keys(self), *gate.names()})

    def keys(self):
        return dict.fromkeys(self).keys()

    def pop(self, name, *default):
        if name in gate.late:
            gate.wait(f"the first read of {os.fsdecode(name)}")
        return dict.pop(self, name, *default)

    def setdefault(self, name, default=None):
        if name in gate.late:
            gate.wait(f"the first read of {os.fsdecode(name)}")
        return dict.setdefault(self, name, default)

    def copy(self):
        gate.wait_for_copy()
        return dict(self)

    def items(self):
        gate.wait_for_copy()
        return dict.items(self)

    def values(self):
        gate.wait_for_copy()
        return dict.values(self)

    def __repr__(self):
        gate.wait_for_copy()
        return dict.__repr__(self)


def _hide(said):
    """Takes what brought this here out of the environment and the path of modules."""
    own = os.path.dirname(__file__)
    path = os.environ.get("PYTHONPATH", "").removeprefix(own)
    variables = {"TOLLBRIDGE_GATE": None, "TOLLBRIDGE_GATE_COPIES": None, "PYTHONPATH": path[1:] if path else None}
    for name, value in variables.items():
        key = os.fsencode(name)
        if value is None:
            os.environ.pop(name, None)
            posix.environ.pop(key, None)
        else:
            os.environ[name] = value
            posix.environ[key] = os.fsencode(value)
    sys.path[:] = [entry for entry in sys.path if entry != own]
    sys.path_importer_cache.pop(own, None)


def _install(gate):
    gate.tell("has begun")
    if not gate.late:
        return
    import _posixsubprocess

    for environ in (os.environ, os.environb):
        environ.__class__ = LateEnviron

        def back(environ=environ):
            environ.__class__ = _Environ

        gate.undo.append(back)
    gate.dicts = [posix.environ, LateDict(posix.environ)]
    gate.replace(posix, "environ", gate.dicts[1])
    another = "the start of another program"
    # Without an environment of its own, which is the sixth that it is given.
    gate.wait_in(_posixsubprocess, "fork_exec", another, lambda *given: given[5] is None)
    for name in ("system", "execv"):
        for owner in (os, posix):
            gate.wait_in(owner, name, another)
    os.register_at_fork(before=lambda: gate.wait(another))


def _run_own():
    """An image may have a module of this name itself."""
    this = sys.modules.pop(__name__)
    try:
        import sitecustomize  # noqa: F401
    except ImportError as error:
        if error.name != __name__:
            raise
    finally:
        # Python asks for what it has just loaded.
        sys.modules.setdefault(__name__, this)


said = os.environ.get("TOLLBRIDGE_GATE")
if said is not None:
    gate = Gate(said)
    gate.copies_go_without = os.environ.get("TOLLBRIDGE_GATE_COPIES") == "without"
    if gate.at_start is not None:
        os.set_inheritable(gate.descriptor, False)
    _hide(said)
    _install(gate)
    _run_own()
