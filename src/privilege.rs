//! Capabilities of this process. A program that it starts gets none of them, unless they are handed on to it.
//!
//! A program of a user who is not root gets what is ambient in the thread that starts it, so here nothing is, except
//! for a moment. A program of root gets everything whatever is done here.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// What it takes to become another user for good.
pub const TO_BECOME_ANOTHER: CapabilitySet =
    CapabilitySet::SETUID.union(CapabilitySet::SETGID).union(CapabilitySet::SETPCAP);

/// Whether this process has all of these.
#[must_use]
pub fn has(wanted: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|own| own.effective.contains(wanted))
}

/// Keeps the capabilities of this thread, and of those that it starts from now on, to this program.
pub fn keep() {
    inherit(CapabilitySet::empty());
}

/// Starts a program that gets of these what this process has.
pub fn handing_on<T>(wanted: CapabilitySet, start: impl FnOnce() -> T) -> T {
    let given = capabilities(None).map_or(CapabilitySet::empty(), |own| own.permitted.intersection(wanted));
    let _kept_again = KeptAgain;
    inherit(given);
    for capability in single(given) {
        // Who may not, starts a program without.
        let _ = configure_capability_in_ambient_set(capability, true);
    }
    start()
}

/// Hands on whatever this process has.
pub fn handing_on_all<T>(start: impl FnOnce() -> T) -> T {
    handing_on(CapabilitySet::from_bits_retain(u64::MAX), start)
}

struct KeptAgain;

impl Drop for KeptAgain {
    fn drop(&mut self) {
        keep();
    }
}

/// Lets programs inherit these. What they may not inherit is not ambient either.
fn inherit(inheritable: CapabilitySet) {
    if let Ok(own) = capabilities(None)
        && own.inheritable != inheritable
    {
        let _ = set_capabilities(None, CapabilitySets { inheritable, ..own });
    }
}

/// Sees to it that no program run from here on is given a capability by its file. Whoever may not do that may also not
/// be given any, once it has no new privileges.
pub fn close_bounding_set() {
    for capability in single(CapabilitySet::from_bits_retain(u64::MAX)) {
        // After the last one, or at once if it is not ours to do.
        if let Err(Errno::INVAL | Errno::PERM) = remove_capability_from_bounding_set(capability) {
            return;
        }
    }
}

/// Gives up every capability, for good.
///
/// # Errors
/// None that is known.
pub fn give_up() -> Result<(), Errno> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

fn single(set: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number)).filter(move |&one| set.contains(one))
}
