//! Makes a job graph of a stream graph, with Flink's chaining rules (`StreamingJobGraphGenerator.isChainable`).

use std::collections::HashMap;

use millstream_model::{
    config::{
        BadValue, Configuration, OPERATOR_CHAINING, PARALLELISM, PIPELINE_MAX_PARALLELISM, RUNTIME_MODE, RuntimeMode,
    },
    id::{JobId, JobVertexId, OperatorId},
    job_graph::{
        Codec, JobEdge, JobGraph, JobVertex, Operator, OperatorOutput, OperatorRole, OutputTarget, Partitioning,
    },
    key_group::MaxParallelism,
};
use xxhash_rust::xxh3::xxh3_128;

use super::node::{Chaining, NodeInput, StreamGraph, StreamNode};
use crate::{factory::encode_conf, source::Boundedness};

/// A program that describes no job that could run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGraph {
    #[error("the program has no operators; add a source and a sink before execute()")]
    Empty,
    #[error("operators '{0}' and '{1}' have the same uid '{2}'; a uid names the state of one operator")]
    SameUid(String, String, String),
    #[error("operator '{operator}' has parallelism {parallelism}; it must be between 1 and its max parallelism {max}")]
    Parallelism { operator: String, parallelism: u32, max: u32 },
    #[error("operator '{operator}' has max parallelism {max}; it must be between 1 and {}", MaxParallelism::LIMIT)]
    MaxParallelism { operator: String, max: u32 },
    #[error(
        "'{from}' (parallelism {producers}) is joined to '{to}' (parallelism {consumers}) by forward(), which needs \
         equal parallelism; use rebalance() or set_parallelism"
    )]
    UnequalForward { from: String, to: String, producers: u32, consumers: u32 },
    #[error(
        "source '{0}' has no end, so a batch would never give a result; set {key} to STREAMING or AUTOMATIC, or let the \
         source say that it is bounded (`Source::boundedness`)",
        key = RUNTIME_MODE.name()
    )]
    UnboundedBatch(String),
    #[error(transparent)]
    BadValue(#[from] BadValue),
}

/// What a node's settings and the configuration make of it.
struct Resolved {
    parallelism: u32,
    max_parallelism: MaxParallelism,
    id: OperatorId,
    group: String,
}

/// Makes the job graph.
pub(crate) fn plan(
    graph: &StreamGraph,
    job_id: JobId,
    name: &str,
    configuration: &Configuration,
) -> Result<JobGraph, InvalidGraph> {
    if graph.nodes.is_empty() {
        return Err(InvalidGraph::Empty);
    }
    let resolved = resolve(graph, configuration)?;
    let partitionings = check_edges(graph, &resolved)?;
    let chaining = configuration.get(&OPERATOR_CHAINING)?;

    // Which operator each one is chained to. Nodes are created after their inputs, so indices are topological.
    let chained_to: Vec<Option<usize>> = (0..graph.nodes.len())
        .map(|node| chaining.then(|| chain_predecessor(graph, &resolved, &partitionings, node)).flatten())
        .collect();

    let mut vertex_of = vec![(0, 0); graph.nodes.len()];
    let mut vertices: Vec<JobVertex> = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let operator = operator(node, &resolved[index]);
        match chained_to[index] {
            Some(before) => {
                let vertex = vertex_of[before].0;
                vertex_of[index] = (vertex, vertices[vertex].operators.len());
                vertices[vertex].name += &format!(" -> {}", operator.name);
                vertices[vertex].operators.push(operator);
            }
            None => {
                vertex_of[index] = (vertices.len(), 0);
                vertices.push(vertex(node, &resolved[index], operator));
            }
        }
    }

    let mut edges = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        for (input, partitioning) in node.inputs.iter().zip(&partitionings[index]) {
            let (source, source_operator) = vertex_of[input.from];
            let (target, target_operator) = vertex_of[index];
            let link = match chained_to[index] {
                Some(_) => OutputTarget::Chained(target_operator),
                None => {
                    edges.push(edge(node, input, *partitioning, source, target));
                    OutputTarget::Edge(edges.len() - 1)
                }
            };
            let output = OperatorOutput { tag: input.tag.clone(), target: link };
            vertices[source].operators[source_operator].outputs.push(output);
        }
    }
    let mut configuration = configuration.clone();
    let mode = runtime_mode(graph, configuration.get(&RUNTIME_MODE)?)?;
    if configuration.get(&RUNTIME_MODE)? != mode {
        configuration.set(&RUNTIME_MODE, mode);
    }
    Ok(JobGraph { job_id, name: name.to_owned(), vertices, edges, configuration, artifact: None })
}

/// What `AUTOMATIC` comes to: operators never see it. As Flink's `StreamGraphGenerator.shouldExecuteInBatchMode`.
fn runtime_mode(graph: &StreamGraph, configured: RuntimeMode) -> Result<RuntimeMode, InvalidGraph> {
    let unbounded = graph.nodes.iter().find(|node| node.boundedness == Some(Boundedness::ContinuousUnbounded));
    match (configured, unbounded) {
        (RuntimeMode::Batch, Some(source)) => Err(InvalidGraph::UnboundedBatch(source.display_name())),
        (RuntimeMode::Automatic, Some(_)) => Ok(RuntimeMode::Streaming),
        (RuntimeMode::Automatic, None) => Ok(RuntimeMode::Batch),
        (given, _) => Ok(given),
    }
}

fn operator(node: &StreamNode, resolved: &Resolved) -> Operator {
    Operator {
        id: resolved.id,
        uid: node.uid.clone(),
        name: node.display_name(),
        role: node.role,
        factory: node.factory.clone(),
        conf: node.conf.clone(),
        coordinator: node.coordinator.clone(),
        outputs: Vec::new(),
    }
}

fn vertex(node: &StreamNode, resolved: &Resolved, head: Operator) -> JobVertex {
    JobVertex {
        id: JobVertexId(resolved.id.0),
        name: head.name.clone(),
        parallelism: resolved.parallelism,
        max_parallelism: resolved.max_parallelism,
        operators: vec![head],
        slot_sharing_group: resolved.group.clone(),
        on_own_thread: node.on_own_thread,
    }
}

fn edge(node: &StreamNode, input: &NodeInput, partitioning: Partitioning, source: usize, target: usize) -> JobEdge {
    JobEdge {
        source,
        target,
        input: input.input,
        partitioning,
        codec: Codec::Row,
        writer: input.edge.writer.clone(),
        writer_conf: input.edge.writer_conf.clone().unwrap_or_else(|| encode_conf(&partitioning)),
        reader: node.reader.clone(),
    }
}

/// Parallelism, identity and slot sharing group of every node.
fn resolve(graph: &StreamGraph, configuration: &Configuration) -> Result<Vec<Resolved>, InvalidGraph> {
    let default_parallelism = configuration.get(&PARALLELISM)?;
    let default_max = configuration.get(&PIPELINE_MAX_PARALLELISM)?;
    let mut resolved: Vec<Resolved> = Vec::with_capacity(graph.nodes.len());
    let mut ids = HashMap::<OperatorId, usize>::new();
    for node in &graph.nodes {
        let operator = node.display_name();
        let parallelism = node.parallelism.unwrap_or(default_parallelism);
        if parallelism == 0 || parallelism > MaxParallelism::LIMIT {
            return Err(InvalidGraph::Parallelism { operator, parallelism, max: MaxParallelism::LIMIT });
        }
        let max = node.max_parallelism.map(MaxParallelism).or(default_max);
        let max_parallelism = max.unwrap_or_else(|| MaxParallelism::default_for(parallelism));
        if !(1..=MaxParallelism::LIMIT).contains(&max_parallelism.0) {
            return Err(InvalidGraph::MaxParallelism { operator, max: max_parallelism.0 });
        }
        if parallelism > max_parallelism.0 {
            return Err(InvalidGraph::Parallelism { operator, parallelism, max: max_parallelism.0 });
        }
        let id = identify(node, &resolved, &mut ids);
        if let (Some(uid), Some(other)) = (&node.uid, ids.insert(id, resolved.len())) {
            return Err(InvalidGraph::SameUid(graph.nodes[other].display_name(), operator, uid.clone()));
        }
        // As in Flink, an operator joins the group of its inputs if they agree.
        let mut groups = node.inputs.iter().map(|input| &resolved[input.from].group);
        let inherited = groups.next().filter(|first| groups.all(|group| group == *first)).cloned();
        let group = node.slot_sharing_group.clone().or(inherited).unwrap_or_else(|| "default".to_owned());
        resolved.push(Resolved { parallelism, max_parallelism, id, group });
    }
    Ok(resolved)
}

/// The identity that a uid gives.
pub(crate) fn id_of_uid(uid: &str) -> OperatorId {
    OperatorId(xxh3_128(format!("uid:{uid}").as_bytes()))
}

/// The hash of the uid, or else of the operator's path: what it does, where its input comes from, and how many equal
/// ones came before it.
fn identify(node: &StreamNode, before: &[Resolved], taken: &mut HashMap<OperatorId, usize>) -> OperatorId {
    if let Some(uid) = &node.uid {
        return id_of_uid(uid);
    }
    let mut path = format!("path:{}", node.kind);
    for input in &node.inputs {
        path += &format!("|{}:{}:{:?}", before[input.from].id, input.input, input.tag);
    }
    let candidates = (0_u64..).map(|ordinal| OperatorId(xxh3_128(format!("{path}#{ordinal}").as_bytes())));
    candidates.into_iter().find(|id| !taken.contains_key(id)).expect("there are more ordinals than operators")
}

/// The partitioning of every input of every node.
fn check_edges(graph: &StreamGraph, resolved: &[Resolved]) -> Result<Vec<Vec<Partitioning>>, InvalidGraph> {
    let of_input = |index: usize, input: &NodeInput| {
        let (producers, consumers) = (resolved[input.from].parallelism, resolved[index].parallelism);
        match input.edge.partitioning {
            None if producers == consumers => Ok(Partitioning::Forward),
            None => Ok(Partitioning::Rebalance),
            Some(Partitioning::Forward) if producers != consumers => Err(InvalidGraph::UnequalForward {
                from: graph.nodes[input.from].display_name(),
                to: graph.nodes[index].display_name(),
                producers,
                consumers,
            }),
            Some(partitioning) => Ok(partitioning),
        }
    };
    let of_node =
        |(index, node): (usize, &StreamNode)| node.inputs.iter().map(|input| of_input(index, input)).collect();
    graph.nodes.iter().enumerate().map(of_node).collect()
}

/// The operator that `node` may be chained to.
fn chain_predecessor(
    graph: &StreamGraph,
    resolved: &[Resolved],
    partitionings: &[Vec<Partitioning>],
    index: usize,
) -> Option<usize> {
    let node = &graph.nodes[index];
    let [input] = &node.inputs[..] else { return None };
    let before = &graph.nodes[input.from];
    let chainable = node.role == OperatorRole::OneInput
        && partitionings[index] == [Partitioning::Forward]
        && node.chaining == Chaining::Always
        && before.chaining != Chaining::Never
        && resolved[index].group == resolved[input.from].group
        && resolved[index].max_parallelism == resolved[input.from].max_parallelism
        && node.on_own_thread == before.on_own_thread;
    chainable.then_some(input.from)
}

#[cfg(test)]
mod tests {
    use millstream_model::job_graph::FactoryRef;

    use super::*;
    use crate::graph::node::Edge;

    fn node(kind: &'static str, inputs: &[(usize, Option<Partitioning>)]) -> StreamNode {
        let named = |name: &str| FactoryRef::Named(name.to_owned());
        let input = |(from, partitioning): &(usize, Option<Partitioning>)| NodeInput {
            from: *from,
            tag: None,
            input: 0,
            edge: Edge { partitioning: *partitioning, writer: named("writer"), writer_conf: None },
        };
        StreamNode {
            kind,
            line: "main.rs:1".into(),
            name: None,
            uid: None,
            parallelism: Some(2),
            max_parallelism: None,
            slot_sharing_group: None,
            chaining: if inputs.is_empty() { Chaining::Head } else { Chaining::Always },
            on_own_thread: false,
            role: if inputs.is_empty() { OperatorRole::Source } else { OperatorRole::OneInput },
            boundedness: inputs.is_empty().then_some(Boundedness::Bounded),
            factory: named(kind),
            conf: Vec::new(),
            coordinator: None,
            reader: None,
            inputs: inputs.iter().map(input).collect(),
        }
    }

    fn planned(nodes: Vec<StreamNode>) -> Result<JobGraph, InvalidGraph> {
        plan(&StreamGraph { nodes }, JobId(1), "test", &Configuration::new())
    }

    fn names(graph: &JobGraph) -> Vec<usize> {
        graph.vertices.iter().map(|vertex| vertex.operators.len()).collect()
    }

    #[test]
    fn operators_joined_by_forward_form_one_chain() {
        let hash = Some(Partitioning::Hash);
        let nodes = vec![
            node("Source", &[]),
            node("Map", &[(0, None)]),
            node("Count", &[(1, hash)]),
            node("Sink", &[(2, None)]),
        ];
        let graph = planned(nodes).unwrap();
        assert_eq!(names(&graph), [2, 2]);
        assert_eq!(graph.edges.len(), 1);
        assert_eq!((graph.edges[0].source, graph.edges[0].target), (0, 1));
        assert_eq!(graph.edges[0].partitioning, Partitioning::Hash);
    }

    #[test]
    fn what_flink_does_not_chain_is_not_chained() {
        type Change = fn(&mut StreamNode);
        let break_chain: [(&str, Change); 5] = [
            ("disabled", |map| map.chaining = Chaining::Never),
            ("new chain", |map| map.chaining = Chaining::Head),
            ("other group", |map| map.slot_sharing_group = Some("other".into())),
            ("other parallelism", |map| map.parallelism = Some(3)),
            ("own thread", |map| map.on_own_thread = true),
        ];
        for (why, change) in break_chain {
            let mut map = node("Map", &[(0, None)]);
            change(&mut map);
            let graph = planned(vec![node("Source", &[]), map]).unwrap();
            assert_eq!(names(&graph), [1, 1], "{why}");
        }
        let union = node("Map", &[(0, None), (1, None)]);
        assert_eq!(names(&planned(vec![node("A", &[]), node("B", &[]), union]).unwrap()), [1, 1, 1]);
    }

    #[test]
    fn ids_come_from_uids_and_otherwise_from_the_path() {
        let nodes = || vec![node("Source", &[]), node("Map", &[(0, None)]), node("Map", &[(0, None)])];
        let ids = |graph: JobGraph| -> Vec<OperatorId> {
            graph.vertices.iter().flat_map(|vertex| vertex.operators.iter().map(|operator| operator.id)).collect()
        };
        let first = ids(planned(nodes()).unwrap());
        assert_eq!(first, ids(planned(nodes()).unwrap()));
        assert_ne!(first[1], first[2]);
        // A name or an operator elsewhere does not change the identity of one with a uid.
        let mut with_uid = nodes();
        with_uid[2].uid = Some("counter".into());
        let id = ids(planned(with_uid.clone()).unwrap())[2];
        with_uid[0].name = Some("renamed".into());
        with_uid[1].kind = "Filter";
        assert_eq!(ids(planned(with_uid).unwrap())[2], id);
    }

    #[test]
    fn automatic_is_batch_exactly_if_all_sources_have_an_end() {
        use Boundedness::{Bounded, ContinuousUnbounded};
        let mode = |configured: RuntimeMode, sources: [Boundedness; 2]| {
            let source = |boundedness| StreamNode { boundedness: Some(boundedness), ..node("Source", &[]) };
            let nodes = vec![source(sources[0]), source(sources[1]), node("Map", &[(0, None), (1, None)])];
            let mut configuration = Configuration::new();
            configuration.set(&RUNTIME_MODE, configured);
            let graph = plan(&StreamGraph { nodes }, JobId(1), "test", &configuration)?;
            Ok::<_, InvalidGraph>(graph.configuration.get(&RUNTIME_MODE)?)
        };
        assert_eq!(mode(RuntimeMode::Automatic, [Bounded, Bounded]), Ok(RuntimeMode::Batch));
        assert_eq!(mode(RuntimeMode::Automatic, [Bounded, ContinuousUnbounded]), Ok(RuntimeMode::Streaming));
        assert_eq!(mode(RuntimeMode::Automatic, [ContinuousUnbounded; 2]), Ok(RuntimeMode::Streaming));
        // What the user said holds, whatever the sources are.
        assert_eq!(mode(RuntimeMode::Batch, [Bounded, Bounded]), Ok(RuntimeMode::Batch));
        assert_eq!(mode(RuntimeMode::Streaming, [Bounded, Bounded]), Ok(RuntimeMode::Streaming));
        assert_eq!(mode(RuntimeMode::Streaming, [Bounded, ContinuousUnbounded]), Ok(RuntimeMode::Streaming));
        let refused = mode(RuntimeMode::Batch, [Bounded, ContinuousUnbounded]).unwrap_err();
        assert_eq!(refused, InvalidGraph::UnboundedBatch("Source (main.rs:1)".into()));
        let message = refused.to_string();
        assert!(message.contains("execution.runtime-mode to STREAMING or AUTOMATIC"), "{message}");
    }

    #[test]
    fn errors_name_the_operator() {
        let mut absurd = node("Map", &[(0, None)]);
        absurd.parallelism = Some(0);
        let message = planned(vec![node("Source", &[]), absurd]).unwrap_err().to_string();
        assert!(message.contains("Map (main.rs:1)") && message.contains("parallelism 0"), "{message}");
        let mut twin = node("Map", &[(0, None)]);
        twin.uid = Some("same".into());
        let message = planned(vec![node("Source", &[]), twin.clone(), twin]).unwrap_err().to_string();
        assert!(message.contains("uid 'same'"), "{message}");
        assert_eq!(planned(Vec::new()).unwrap_err(), InvalidGraph::Empty);
    }
}
