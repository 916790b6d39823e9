//! What operators see of the configuration: which one is served, and whether its file is good.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What is known of the configuration that is served, and of the file that it came from.
#[derive(Debug)]
pub struct ConfigStatus {
    build: Family<[(&'static str, String); 2], Gauge>,
    /// When the file was found bad that is bad still, Unix time; 0 while it is good.
    pub bad_since: Gauge,
    /// Times that another configuration was taken over.
    pub reloaded: Counter,
    /// Times that it was not, because it was bad.
    pub refused: Counter,
}

impl ConfigStatus {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let build = Family::default();
        let reloads = Family::<[(&str, &str); 1], Counter>::default();
        registry.register("build_info", "The version, and the fingerprint of the configuration", build.clone());
        registry.register("config_reloads", "Times that the configuration was to be read anew", reloads.clone());
        let bad_since = Gauge::default();
        registry.register("config_bad_since_seconds", "Since when the file is bad, Unix time, or 0", bad_since.clone());
        Self {
            build,
            bad_since,
            reloaded: reloads.get_or_create_owned(&[("outcome", "done")]),
            refused: reloads.get_or_create_owned(&[("outcome", "refused")]),
        }
    }

    /// Shows the fingerprint of the configuration that is served from now on.
    pub fn serve(&self, fingerprint: String) {
        self.build.clear();
        let labels = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("config", fingerprint)];
        self.build.get_or_create_owned(&labels).set(1);
    }
}
