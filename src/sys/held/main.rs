//! The entry point of a container that waits: it is told the variables of its program that nobody knew before the request,
//! and becomes it. What it reads from stdin is said in `src/upstream/process/held.rs`, which does the same for programs.
//!
//! It needs nothing of the image, neither a loader nor a library: all that it does are four calls of the system. Its name is
//! followed by the program, which is looked for in PATH if there is no slash in it, and its arguments.
#![no_std]
#![no_main]
// A loop that copies is not to become a call of a library that is not there.
#![no_builtins]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;
use core::ptr::{addr_of_mut, null};

/// The most bytes of variables, and the most variables, that the bridge sends or an image has.
const LONGEST: usize = 1 << 20;
const MOST: usize = 1 << 17;
/// The longest path of a program (`PATH_MAX`).
const PATH: usize = 4096;

/// What a shell answers for a program that cannot be run, and for one that is not there.
const CANNOT_RUN: usize = 126;
const NOT_FOUND: usize = 127;

/// Of `errno`: the call is to be made again; and what is no reason not to look in the next directory.
const EINTR: isize = -4;
const ENOENT: isize = -2;
const EACCES: isize = -13;
const ENOTDIR: isize = -20;

/// The record with a NUL behind it, the environment with a null pointer behind it, and the path that is tried.
static mut RECORD: [u8; LONGEST + 1] = [0; LONGEST + 1];
static mut ENVIRONMENT: [*const u8; MOST + 1] = [null(); MOST + 1];
static mut CANDIDATE: [u8; PATH] = [0; PATH];

#[cfg(target_arch = "x86_64")]
mod machine {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const EXECVE: usize = 59;
    pub const EXIT_GROUP: usize = 231;
}
#[cfg(target_arch = "aarch64")]
mod machine {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const EXECVE: usize = 221;
    pub const EXIT_GROUP: usize = 94;
}
use machine::{EXECVE, EXIT_GROUP, READ, WRITE};

// The kernel enters with the stack pointer at the count of arguments.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "mov rdi, rsp", "and rsp, -16", "call {start}", "ud2", start = sym start);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x0, sp", "bl {start}", "brk #0", start = sym start);

/// One call of the system.
///
/// # Safety
/// What the arguments point to is as the call needs it.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize) -> isize {
    let answer;
    // SAFETY: the kernel changes rcx, r11, rax and what the caller has answered for.
    unsafe {
        asm!("syscall", inlateout("rax") number => answer, in("rdi") a, in("rsi") b, in("rdx") c,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    answer
}

/// One call of the system.
///
/// # Safety
/// What the arguments point to is as the call needs it.
#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize) -> isize {
    let answer;
    // SAFETY: the kernel changes x0 and what the caller has answered for.
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a => answer, in("x1") b, in("x2") c, options(nostack));
    }
    answer
}

fn end(code: usize) -> ! {
    loop {
        // SAFETY: it takes no pointer.
        unsafe { call(EXIT_GROUP, code, 0, 0) };
    }
}

fn fail(code: usize) -> ! {
    const SAID: &[u8] = b"tollbridge: the program of this container cannot be run\n";
    // SAFETY: the text is as long as it is said to be.
    unsafe { call(WRITE, 2, SAID.as_ptr() as usize, SAID.len()) };
    end(code)
}

/// Fills `length` bytes from stdin, and says how many there were before it ended.
///
/// # Safety
/// There is room for so many.
unsafe fn read(to: *mut u8, length: usize) -> usize {
    let mut done = 0;
    while done < length {
        // SAFETY: the rest of the room.
        match unsafe { call(READ, 0, to.wrapping_add(done) as usize, length - done) } {
            EINTR => {}
            count if count > 0 => done += count as usize,
            _ => break,
        }
    }
    done
}

/// The length of a text, without its NUL.
///
/// # Safety
/// There is a NUL.
unsafe fn length(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: as said.
    while unsafe { *text.wrapping_add(length) } != 0 {
        length += 1;
    }
    length
}

/// What stands behind `NAME=`, if both are variables of one name; of two that are the same text, its value.
///
/// # Safety
/// Both end with a NUL.
unsafe fn value_of_same(variable: *const u8, other: *const u8) -> Option<*const u8> {
    let mut at = 0;
    loop {
        // SAFETY: neither has ended so far.
        let (a, b) = unsafe { (*variable.wrapping_add(at), *other.wrapping_add(at)) };
        match (a, b) {
            (b'=' | 0, b'=' | 0) => return Some(other.wrapping_add(at + usize::from(b == b'='))),
            _ if a != b => return None,
            _ => at += 1,
        }
    }
}

/// Puts the variables of the record, and what else the image has, into the environment.
///
/// # Safety
/// `early` ends with a null pointer, and the record with a NUL. Nobody else uses the environment.
unsafe fn merge(early: *const *const u8, record: *const u8, size: usize) -> *const *const u8 {
    let environment = addr_of_mut!(ENVIRONMENT).cast::<*const u8>();
    let (mut count, mut at) = (0, 0);
    while at < size {
        if count == MOST {
            fail(CANNOT_RUN);
        }
        // SAFETY: it is within the record and there is room for one more.
        unsafe {
            *environment.wrapping_add(count) = record.wrapping_add(at);
            at += length(record.wrapping_add(at)) + 1;
        }
        count += 1;
    }
    let (late, mut next) = (count, early);
    // SAFETY: all are texts with a NUL, and there is room for one more and a null pointer.
    unsafe {
        while !(*next).is_null() {
            let mut is_late = false;
            for other in 0..late {
                is_late |= value_of_same(*next, *environment.wrapping_add(other)).is_some();
            }
            if !is_late {
                if count == MOST {
                    fail(CANNOT_RUN);
                }
                *environment.wrapping_add(count) = *next;
                count += 1;
            }
            next = next.wrapping_add(1);
        }
        *environment.wrapping_add(count) = null();
    }
    environment
}

/// Becomes the program at `path`; answers why not.
///
/// # Safety
/// All are as `execve` takes them.
unsafe fn become_program(path: *const u8, args: *const *const u8, environment: *const *const u8) -> isize {
    // SAFETY: as said.
    unsafe { call(EXECVE, path as usize, args as usize, environment as usize) }
}

/// Becomes the first program of the name that is in a directory of PATH.
///
/// # Safety
/// As [`become_program`]. Nobody else uses the candidate.
unsafe fn search(args: *const *const u8, environment: *const *const u8) -> ! {
    let candidate = addr_of_mut!(CANDIDATE).cast::<u8>();
    let mut directory: *const u8 = c"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".as_ptr().cast();
    let mut next = environment;
    let mut code = NOT_FOUND;
    // SAFETY: all are texts with a NUL; no more is written than there is room for.
    unsafe {
        while !(*next).is_null() {
            directory = value_of_same(c"PATH".as_ptr().cast(), *next).unwrap_or(directory);
            next = next.wrapping_add(1);
        }
        let (name, name_length) = (*args, length(*args) + 1);
        loop {
            let mut end = 0;
            while *directory.wrapping_add(end) != b':' && *directory.wrapping_add(end) != 0 {
                end += 1;
            }
            // An empty one is where it is, which a container's program is not looked for in.
            if end > 0 && end + 1 + name_length <= PATH {
                for at in 0..end {
                    *candidate.wrapping_add(at) = *directory.wrapping_add(at);
                }
                *candidate.wrapping_add(end) = b'/';
                for at in 0..name_length {
                    *candidate.wrapping_add(end + 1 + at) = *name.wrapping_add(at);
                }
                match become_program(candidate, args, environment) {
                    ENOENT | ENOTDIR => {}
                    EACCES => code = CANNOT_RUN,
                    _ => fail(CANNOT_RUN),
                }
            }
            if *directory.wrapping_add(end) == 0 {
                fail(code);
            }
            directory = directory.wrapping_add(end + 1);
        }
    }
}

/// # Safety
/// `stack` is as the kernel leaves it: the count of arguments, they, a null pointer, the environment, a null pointer.
unsafe extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: as said; this is the only thread.
    unsafe {
        let count = *stack;
        let args = stack.wrapping_add(2).cast::<*const u8>();
        let early = stack.wrapping_add(count + 2).cast::<*const u8>();
        let mut size = [0_u8; 4];
        if read(size.as_mut_ptr(), size.len()) < size.len() {
            // There is no request for it.
            end(0);
        }
        let size = u32::from_be_bytes(size) as usize;
        let record = addr_of_mut!(RECORD).cast::<u8>();
        if count < 2 || size > LONGEST || read(record, size) < size {
            fail(CANNOT_RUN);
        }
        let environment = merge(early, record, size);
        let (program, mut at) = (*args, 0);
        while *program.wrapping_add(at) != 0 {
            if *program.wrapping_add(at) == b'/' {
                become_program(program, args, environment);
                fail(CANNOT_RUN);
            }
            at += 1;
        }
        search(args, environment)
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    end(CANNOT_RUN)
}
