//! The reporters that the configuration asks for: `metrics.reporter.<name>.…`.

use std::{collections::BTreeSet, sync::Arc};

use millstream_model::{
    config::{
        Configuration, METRIC_REPORTER_CLASS, METRIC_REPORTER_ENDPOINT, METRIC_REPORTER_FILTER_LABELS,
        METRIC_REPORTER_HOST, METRIC_REPORTER_INTERVAL, METRIC_REPORTER_PORT, METRIC_REPORTER_PROTOCOL,
        METRIC_REPORTER_SERVICE_NAME, METRIC_REPORTER_SERVICE_VERSION, METRIC_REPORTER_TIMEOUT, METRIC_REPORTERS,
        MetricReporterKind,
    },
    fault::Failure,
};
use tokio::task::JoinSet;

use super::{
    otlp::{self, Target},
    prometheus,
    scrape::Collect,
};
use crate::{
    address::{Protection, listen_at_first_free},
    jobmanager::port::Port,
    security::{Guard, tls},
};

/// Those that run. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Reporters {
    _running: JoinSet<()>,
}

impl Reporters {
    /// Starts all of them.
    ///
    /// # Errors
    /// If one is not configured as it has to be, or has no port.
    pub(crate) async fn start(configuration: &Configuration, numbers: Arc<impl Collect>) -> Result<Reporters, Failure> {
        let mut running = JoinSet::new();
        for name in names(configuration)? {
            let Some(kind) = configuration.get_named(&METRIC_REPORTER_CLASS, &name)? else {
                return Err(Failure::fatal(format!(
                    "metrics.reporters names {name}, and metrics.reporter.{name}.factory.class is not set: it has to be \
                     prometheus or otlp"
                )));
            };
            match kind {
                MetricReporterKind::Prometheus => serve(configuration, &name, numbers.clone(), &mut running).await?,
                MetricReporterKind::Otlp => {
                    let target = target(configuration, &name)?;
                    tracing::info!(reporter = name, endpoint = target.endpoint, "metrics are sent by OTLP");
                    running.spawn(otlp::send_for_ever(target, numbers.clone()));
                }
            }
        }
        Ok(Reporters { _running: running })
    }
}

fn names(configuration: &Configuration) -> Result<BTreeSet<String>, Failure> {
    let chosen = configuration.get(&METRIC_REPORTERS)?;
    // Flink's list has commas.
    let chosen = chosen.iter().flat_map(|part| part.split(',')).map(str::trim).filter(|name| !name.is_empty());
    let chosen: BTreeSet<String> = chosen.map(str::to_owned).collect();
    Ok(match chosen.is_empty() {
        true => configuration.names_in(&[&METRIC_REPORTER_CLASS.definition]),
        false => chosen,
    })
}

async fn serve(
    configuration: &Configuration,
    name: &str,
    numbers: Arc<dyn Collect>,
    running: &mut JoinSet<()>,
) -> Result<(), Failure> {
    let tls = tls::of_clients(configuration)?;
    let trust = tls.as_ref().and_then(|tls| tls.trust.clone());
    let guard = Guard::of_clients(configuration, trust)?;
    let protection = Protection::of_clients(tls.is_some() && guard.asks_for_proof());
    let host = configuration.get_named(&METRIC_REPORTER_HOST, name)?;
    let ports = configuration.get_named(&METRIC_REPORTER_PORT, name)?;
    let keys = format!("metrics.reporter.{name}.host, metrics.reporter.{name}.port");
    let listener = listen_at_first_free(&host, &ports, &keys, protection, configuration).await?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let address = listener.local_addr().map_err(|cause| Failure::fatal(format!("a port has no address: {cause}")))?;
    tracing::info!(reporter = name, "metrics are at {scheme}://{address}/metrics");
    let filters_labels = configuration.get_named(&METRIC_REPORTER_FILTER_LABELS, name)?;
    let router = guard.protect(prometheus::router(numbers, filters_labels));
    running.spawn(async move { match Port::of_clients(tls, router).serve(listener).await {} });
    Ok(())
}

fn target(configuration: &Configuration, name: &str) -> Result<Target, Failure> {
    let endpoint = configuration.get_named(&METRIC_REPORTER_ENDPOINT, name)?.ok_or_else(|| {
        Failure::fatal(format!(
            "metrics.reporter.{name}.exporter.endpoint is not set: it has to say where the collector is, as \
             http://localhost:4317"
        ))
    })?;
    Ok(Target {
        name: name.to_owned(),
        endpoint,
        protocol: configuration.get_named(&METRIC_REPORTER_PROTOCOL, name)?,
        interval: configuration.get_named(&METRIC_REPORTER_INTERVAL, name)?,
        timeout: configuration.get_named(&METRIC_REPORTER_TIMEOUT, name)?,
        service_name: configuration.get_named(&METRIC_REPORTER_SERVICE_NAME, name)?,
        service_version: configuration.get_named(&METRIC_REPORTER_SERVICE_VERSION, name)?,
    })
}

#[cfg(test)]
mod tests {
    use millstream_model::config::Origin;

    use super::*;

    fn configured(settings: &[(&str, &str)]) -> Configuration {
        let mut configuration = Configuration::new();
        settings.iter().for_each(|(key, text)| configuration.set_text(key, text, Origin::Program));
        configuration
    }

    #[test]
    fn reporters_are_those_with_a_class_unless_some_are_chosen() {
        let class = "org.apache.flink.metrics.prometheus.PrometheusReporterFactory";
        let both = [("metrics.reporter.a.factory.class", class), ("metrics.reporter.b.factory.class", "otlp")];
        assert_eq!(Vec::from_iter(names(&configured(&both)).unwrap()), ["a", "b"]);
        let chosen = [&both[..], &[("metrics.reporters", "b, c")]].concat();
        assert_eq!(Vec::from_iter(names(&configured(&chosen)).unwrap()), ["b", "c"]);
        assert_eq!(names(&configured(&[])).unwrap().len(), 0);
    }

    #[tokio::test]
    async fn what_is_missing_is_said_with_its_key() {
        struct Nothing;
        impl Collect for Nothing {
            fn collect(&self, _: &mut super::super::scrape::Scrape) {}
        }
        for (settings, words) in [
            (vec![("metrics.reporters", "x")], "metrics.reporter.x.factory.class"),
            (vec![("metrics.reporter.x.factory.class", "otlp")], "metrics.reporter.x.exporter.endpoint"),
            (
                vec![("metrics.reporter.x.factory.class", "prometheus"), ("metrics.reporter.x.host", "0.0.0.0")],
                "security.insecure",
            ),
        ] {
            let failure = Reporters::start(&configured(&settings), Arc::new(Nothing)).await.unwrap_err();
            assert!(failure.message.contains(words), "{failure}");
        }
    }
}
