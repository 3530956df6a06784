//! Sends numbers to a collector of OpenTelemetry, by OTLP over gRPC or HTTP, under the names of Flink's
//! `OpenTelemetryMetricReporter`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::body::Body;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use millstream_client::cause::root_cause;
use millstream_model::config::OtlpProtocol;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
        number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::{Channel, Endpoint};

use super::scrape::{Collect, Family, Kind, Scrape};

/// A collector.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Of the reporter.
    pub(super) name: String,
    /// As `http://host:port`, with a path over HTTP.
    pub(super) endpoint: String,
    pub(super) protocol: OtlpProtocol,
    /// Between two times.
    pub(super) interval: Duration,
    /// For the collector's answer.
    pub(super) timeout: Duration,
    pub(super) service_name: Option<String>,
    pub(super) service_version: Option<String>,
}

/// Sends them now and then, for as long as it is polled. What a collector that is not there was not told is lost: counters
/// are sums, and the next ones have it.
pub(super) async fn send_for_ever(target: Target, numbers: Arc<dyn Collect>) {
    let started = nanos_since_1970();
    let mut due = interval(target.interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut line = Line::Closed;
    let mut said = String::new();
    loop {
        due.tick().await;
        let mut scrape = Scrape::default();
        numbers.collect(&mut scrape);
        let request = request(&target, &scrape, started, nanos_since_1970());
        let sent = timeout(target.timeout, line.send(&target, request)).await;
        let why = match sent {
            Ok(Ok(())) => String::new(),
            Ok(Err(why)) => why,
            Err(_) => format!("it has not answered within {:?}", target.timeout),
        };
        if why != said {
            match why.is_empty() {
                true => tracing::info!(reporter = target.name, "metrics reach the collector again"),
                false => {
                    tracing::warn!(reporter = target.name, endpoint = target.endpoint, why, "metrics are not taken")
                }
            }
            said = why;
        }
    }
}

/// The connection to a collector.
enum Line {
    Closed,
    Grpc(MetricsServiceClient<Channel>),
    Http(Client<HttpConnector, Body>),
}

impl Line {
    async fn send(&mut self, target: &Target, request: ExportMetricsServiceRequest) -> Result<(), String> {
        if matches!(self, Line::Closed) {
            *self = Line::open(target)?;
        }
        match self {
            Line::Closed => Err("there is no connection".to_owned()),
            Line::Grpc(client) => {
                let answer = client.export(request).await.map_err(|status| root_cause(&status))?.into_inner();
                match answer.partial_success.filter(|partial| partial.rejected_data_points > 0) {
                    Some(partial) => Err(partial.error_message),
                    None => Ok(()),
                }
            }
            Line::Http(client) => {
                let request = axum::http::Request::post(&target.endpoint)
                    .header("Content-Type", "application/x-protobuf")
                    .body(Body::from(request.encode_to_vec()));
                let request = request.map_err(|cause| format!("{} is no address: {cause}", target.endpoint))?;
                let answer = client.request(request).await.map_err(|cause| root_cause(&cause))?;
                let status = answer.status();
                if status.is_success() { Ok(()) } else { Err(format!("it answers {status}")) }
            }
        }
    }

    fn open(target: &Target) -> Result<Line, String> {
        if !target.endpoint.starts_with("http://") {
            return Err("only addresses that begin with http:// can be spoken to".to_owned());
        }
        Ok(match target.protocol {
            OtlpProtocol::Grpc => {
                let endpoint = Endpoint::from_shared(target.endpoint.clone())
                    .map_err(|cause| format!("it is no address: {}", root_cause(&cause)))?;
                // It connects when there is something to send, and again after it was lost.
                Line::Grpc(MetricsServiceClient::new(endpoint.connect_lazy()))
            }
            OtlpProtocol::Http => Line::Http(Client::builder(TokioExecutor::new()).build_http()),
        })
    }
}

fn request(target: &Target, scrape: &Scrape, started: u64, now: u64) -> ExportMetricsServiceRequest {
    let about = [("service.name", &target.service_name), ("service.version", &target.service_version)];
    let attributes = about.into_iter().filter_map(|(key, value)| Some(attribute(key, value.as_ref()?)));
    let scope = InstrumentationScope { name: "millstream".to_owned(), ..InstrumentationScope::default() };
    let metrics = scrape.families.iter().map(|(name, family)| metric(name, family, started, now)).collect();
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: attributes.collect(), ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }],
            schema_url: String::new(),
        }],
    }
}

fn metric(name: &str, family: &Family, started: u64, now: u64) -> Metric {
    let points = family.points.iter().map(|(labels, value)| NumberDataPoint {
        attributes: labels.iter().map(|(label, value)| attribute(label, value)).collect(),
        start_time_unix_nano: started,
        time_unix_nano: now,
        value: Some(number_data_point::Value::AsDouble(*value)),
        ..NumberDataPoint::default()
    });
    let data_points = points.collect();
    let data = match family.kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        Kind::Gauge => metric::Data::Gauge(Gauge { data_points }),
    };
    Metric { name: format!("flink.{name}"), data: Some(data), ..Metric::default() }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(any_value::Value::StringValue(value.to_owned()));
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value }), ..KeyValue::default() }
}

#[expect(clippy::disallowed_methods, reason = "a collector is told when a number was true")]
fn nanos_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::{Router, body::Bytes, extract::State, routing::post};
    use opentelemetry_proto::tonic::collector::metrics::v1::{
        ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    };
    use tokio::{
        net::TcpListener,
        sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    };
    use tonic::{Request, Response, Status, service::Routes};

    use super::*;
    use crate::jobmanager::port::Port;

    struct One;

    impl Collect for One {
        fn collect(&self, scrape: &mut Scrape) {
            let labels = Arc::new(vec![("job_name", "Source: a".to_owned())]);
            scrape.scope("jobmanager.job", &labels).counter("numRestarts", 3.0).gauge("uptime", 0.5);
        }
    }

    /// Takes what is sent by either way, as a collector does.
    struct Collector(UnboundedSender<ExportMetricsServiceRequest>);

    #[tonic::async_trait]
    impl MetricsService for Collector {
        async fn export(
            &self,
            request: Request<ExportMetricsServiceRequest>,
        ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
            self.0.send(request.into_inner()).map_err(|cause| Status::internal(cause.to_string()))?;
            Ok(Response::new(ExportMetricsServiceResponse::default()))
        }
    }

    async fn collector(listener: TcpListener) -> UnboundedReceiver<ExportMetricsServiceRequest> {
        let (sender, received) = unbounded_channel();
        let by_http = |State(sender): State<UnboundedSender<_>>, body: Bytes| async move {
            sender.send(ExportMetricsServiceRequest::decode(body).unwrap()).unwrap();
        };
        let http = Router::new().route("/v1/metrics", post(by_http)).with_state(sender.clone());
        let grpc = Routes::new(MetricsServiceServer::new(Collector(sender))).into_axum_router();
        tokio::spawn(Port::of_clients(None, grpc.merge(http)).serve(listener));
        received
    }

    fn target(address: SocketAddr, protocol: OtlpProtocol) -> Target {
        let path = if protocol == OtlpProtocol::Http { "/v1/metrics" } else { "" };
        Target {
            name: "otel".to_owned(),
            endpoint: format!("http://{address}{path}"),
            protocol,
            interval: Duration::from_millis(20),
            timeout: Duration::from_secs(10),
            service_name: Some("here".to_owned()),
            service_version: None,
        }
    }

    #[tokio::test]
    async fn numbers_are_sent_by_both_protocols_and_go_on_after_the_collector_was_away() {
        for protocol in [OtlpProtocol::Grpc, OtlpProtocol::Http] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            drop(listener);
            // Nobody is there at first.
            let sending = tokio::spawn(send_for_ever(target(address, protocol), Arc::new(One)));
            let mut line = Line::Closed;
            assert!(line.send(&target(address, protocol), ExportMetricsServiceRequest::default()).await.is_err());
            let mut received = collector(TcpListener::bind(address).await.unwrap()).await;
            let request = received.recv().await.expect("it is sent");
            let [resource] = &request.resource_metrics[..] else { panic!("{request:?}") };
            assert_eq!(resource.resource.as_ref().unwrap().attributes, [attribute("service.name", "here")]);
            let metrics = &resource.scope_metrics[0].metrics;
            let names: Vec<&str> = metrics.iter().map(|metric| &*metric.name).collect();
            assert_eq!(names, ["flink.jobmanager.job.numRestarts", "flink.jobmanager.job.uptime"]);
            let Some(metric::Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:?}") };
            assert!(sum.is_monotonic && sum.data_points[0].start_time_unix_nano > 0);
            assert_eq!(sum.data_points[0].attributes, [attribute("job_name", "Source: a")]);
            assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(3.0)));
            sending.abort();
        }
    }

    #[tokio::test]
    async fn what_is_no_address_is_said() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        for (endpoint, words) in [("https://collector:4317", "http://"), ("http://", "address")] {
            let target = Target { endpoint: endpoint.to_owned(), ..target(address, OtlpProtocol::Grpc) };
            let why = Line::Closed.send(&target, ExportMetricsServiceRequest::default()).await.unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
