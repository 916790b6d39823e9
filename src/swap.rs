//! A value that everybody who shares it reads as it is, and that may be replaced while they do.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// A value that may be replaced: who has loaded it keeps what they have.
pub struct Swap<T: ?Sized>(RwLock<Arc<T>>);

impl<T: ?Sized> Swap<T> {
    /// With this value at first.
    #[must_use]
    pub fn new(value: Arc<T>) -> Self {
        Self(RwLock::new(value))
    }

    /// The value as it is now.
    #[must_use]
    pub fn load(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it.
    pub fn store(&self, value: Arc<T>) {
        let old = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), value);
        // Whatever ends with it ends outside of the lock.
        drop(old);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Swap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_loaded_a_value_keeps_it_when_it_is_replaced() {
        let swap = Swap::new(Arc::new(1));
        let old = swap.load();
        swap.store(Arc::new(2));
        assert_eq!((*old, *swap.load()), (1, 2));
    }
}
