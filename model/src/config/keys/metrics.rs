//! Keys about who is told the numbers of a cluster.

use std::time::Duration;

use super::{
    super::{key::Key, port_range::PortRange, words::*},
    Group,
};

group! {
    METRICS: "Metrics", "Reporters: who is told the numbers of a cluster and its jobs, and how. Each has a name of yours, \
        which stands for `<name>`; JobManager and TaskManagers each start all of them.";

    /// The names of the reporters that are used; without it, all that have a class.
    METRIC_REPORTERS: Vec<String> = Key::new("metrics.reporters", "");

    /// What kind of reporter it is: `prometheus` serves its numbers to those who ask, `otlp` sends them to a collector of
    /// OpenTelemetry. The names of Flink's classes do the same.
    METRIC_REPORTER_CLASS: Option<MetricReporterKind> = Key::optional("metrics.reporter.<name>.factory.class");

    /// Of a reporter for Prometheus: the port, or several of which the first free one is taken, as processes of one
    /// machine need.
    METRIC_REPORTER_PORT: PortRange = Key::new("metrics.reporter.<name>.port", "9249");

    /// Of a reporter for Prometheus: the address to bind to. One that is no loopback needs `security.ssl.rest.enabled` and
    /// `security.token-file`, which hold here as for clients. Flink binds to all addresses.
    METRIC_REPORTER_HOST: String = Key::new("metrics.reporter.<name>.host", "localhost").ours();

    /// Of a reporter for Prometheus: whether characters in values of labels that are no letters, digits, `:` or `_`
    /// become `_`.
    METRIC_REPORTER_FILTER_LABELS: bool = Key::new("metrics.reporter.<name>.filterLabelValueCharacters", "true");

    /// Of a reporter that sends: between two times.
    METRIC_REPORTER_INTERVAL: Duration = Key::new("metrics.reporter.<name>.interval", "10 s").at_least("10 ms");

    /// Of a reporter by OTLP: where the collector is, as `http://host:port`; over HTTP, with the path.
    METRIC_REPORTER_ENDPOINT: Option<String> = Key::optional("metrics.reporter.<name>.exporter.endpoint");

    /// Of a reporter by OTLP: how the collector is spoken to.
    METRIC_REPORTER_PROTOCOL: OtlpProtocol = Key::new("metrics.reporter.<name>.exporter.protocol", "gRPC");

    /// Of a reporter by OTLP: how long the collector may take.
    METRIC_REPORTER_TIMEOUT: Duration = Key::new("metrics.reporter.<name>.exporter.timeout", "10 s").at_least("1 ms");

    /// Of a reporter by OTLP: what it calls this cluster.
    METRIC_REPORTER_SERVICE_NAME: Option<String> = Key::optional("metrics.reporter.<name>.service.name");

    /// Of a reporter by OTLP: what it calls the version of this cluster.
    METRIC_REPORTER_SERVICE_VERSION: Option<String> = Key::optional("metrics.reporter.<name>.service.version");
}
