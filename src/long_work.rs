//! Work on long messages, off the threads that serve: there a thread that is busy for milliseconds keeps everybody
//! waiting whose task it has.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// From how many bytes on a message is long: to read one takes a fraction of a millisecond.
const LONG: usize = 128 << 10;

/// Does the work on a message of so many bytes, which takes a time that grows with them. While it works on a long one,
/// another thread does what else this one had to do. How many there are at once is bounded by the memory that such
/// messages may take.
pub fn by_length<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let others = Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes >= LONG && others { block_in_place(work) } else { work() }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tasks of a test, which waits for them itself")]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_go_on_while_a_long_message_is_worked_on() {
        let (answer, answered) = channel();
        let asked = tokio::spawn(async move {
            // Spawned here it would be this thread's next task.
            tokio::spawn(async move { answer.send(()) });
            by_length(LONG, || answered.recv_timeout(Duration::from_secs(20)).is_ok())
        });
        assert!(asked.await.unwrap());
    }

    #[test]
    fn the_work_is_done_wherever_it_is() {
        assert_eq!(by_length(LONG, || 7), 7);
        let alone = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(alone.block_on(async { by_length(LONG, || 8) }), 8);
    }
}
