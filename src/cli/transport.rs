//! Options of every verb that talks to a registry.

use std::time::Duration;

use crate::registry;

/// How to talk to the registry.
#[derive(clap::Args)]
pub(super) struct TransportArgs {
    /// Talk to this registry by plain http or with any certificate, if it must be (repeatable)
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// How long a request that makes no progress is tried again
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    retry_for: u64,
}

impl TransportArgs {
    /// As the registry module takes them.
    pub(super) fn options(&self) -> registry::Options {
        let settings = registry::settings();
        let mut insecure = self.insecure_registry.clone();
        insecure.extend(settings.insecure);
        registry::Options {
            insecure,
            mirrors: settings.mirrors,
            retry_for: Duration::from_secs(self.retry_for),
        }
    }
}
