//! What an operator does with a bridge that runs, and sees of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

mod operate {
    mod control;
    mod fixed;
    mod metrics;
    mod reload;
    mod stop;
}
