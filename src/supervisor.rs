//! stub
/// s
pub async fn orphaned() {
    std::future::pending().await
}
