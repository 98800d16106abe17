//! Metrics in the text format that Prometheus reads (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use arpanet_core::discovery::{Health, MemberState};
use arpanet_core::{Cluster, Error, ErrorKind, Result};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels = Vec<(String, String)>;

/// The metrics as they are now.
pub(super) async fn render(cluster: &Cluster) -> Result<String> {
    let members = Family::<Labels, Gauge>::default();
    let trip = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    for node in cluster.nodes().await? {
        let label = vec![("node".to_owned(), node.address.to_string())];
        members
            .get_or_create(&label)
            .set(i64::from(node.state != MemberState::Down));
        if let Some(round_trip) = node.round_trip {
            trip.get_or_create(&label).set(round_trip.as_secs_f64());
        }
    }
    let instances = Family::<Labels, Gauge>::default();
    for instance in cluster.instances().await? {
        let label = vec![
            ("service".to_owned(), instance.service.to_string()),
            (
                "passing".to_owned(),
                (instance.health == Health::Passing).to_string(),
            ),
        ];
        instances.get_or_create(&label).inc();
    }
    let mut registry = Registry::with_prefix("arpanet2");
    registry.register("member_up", "Whether the member answers, by node", members);
    registry.register(
        "peer_round_trip_seconds",
        "The last measured round trip over the overlay, by node",
        trip,
    );
    registry.register(
        "instances",
        "Instances in the catalogue, by service and whether they get traffic",
        instances,
    );
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|source| {
        Error::new(ErrorKind::Internal, "the metrics can't be written").with_source(source)
    })?;
    Ok(text)
}
