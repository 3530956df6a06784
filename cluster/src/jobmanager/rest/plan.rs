//! What REST shows of a job graph: its vertices with their operators, and the edges between them. It is kept for as
//! long as the job is known, so it has nothing of the graph that is large.

use millstream_model::{
    id::JobVertexId,
    job_graph::{JobGraph, JobVertex, OutputTarget, Partitioning},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A job's vertices, in topological order.
#[derive(Debug, Default)]
pub(in crate::jobmanager) struct Plan {
    pub(super) vertices: Vec<PlanVertex>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct PlanVertex {
    pub(super) id: JobVertexId,
    pub(super) name: String,
    pub(super) parallelism: u32,
    pub(super) max_parallelism: u32,
    pub(super) slot_sharing_group: String,
    /// Its operators as HTML, as Flink's dashboard shows them.
    description: String,
    inputs: Vec<(JobVertexId, Partitioning)>,
}

impl Plan {
    pub(in crate::jobmanager) fn of(graph: &JobGraph) -> Plan {
        let vertices = graph.vertices.iter().enumerate().map(|(place, vertex)| PlanVertex {
            id: vertex.id,
            name: vertex.name.clone(),
            parallelism: vertex.parallelism,
            max_parallelism: vertex.max_parallelism.0,
            slot_sharing_group: vertex.slot_sharing_group.clone(),
            description: description(vertex),
            inputs: graph
                .inputs(place)
                .filter_map(|(_, edge)| Some((graph.vertices.get(edge.source)?.id, edge.partitioning)))
                .collect(),
        });
        Plan { vertices: vertices.collect() }
    }

    /// Flink's form of it, in which sinks come first.
    pub(super) fn to_json(&self, job: &str, name: &str) -> Value {
        let nodes: Vec<Value> = self.vertices.iter().rev().map(PlanVertex::to_json).collect();
        json!({ "jid": job, "name": name, "type": "STREAMING", "nodes": nodes })
    }
}

impl PlanVertex {
    fn to_json(&self) -> Value {
        let mut node = json!({
            "id": self.id.to_string(), "operator": "", "parallelism": self.parallelism, "operator_strategy": "",
            "description": self.description, "optimizer_properties": {},
        });
        if !self.inputs.is_empty() {
            let inputs = self.inputs.iter().enumerate().map(|(number, (id, partitioning))| {
                json!({
                    "id": id.to_string(), "num": number, "exchange": "pipelined_bounded",
                    "ship_strategy": partitioning,
                })
            });
            node["inputs"] = inputs.collect();
        }
        node
    }

    /// Flink gives each group an id at random; here it is made of the group's name, so that it stays.
    pub(super) fn slot_sharing_group_id(&self) -> String {
        let hash = Sha256::digest(self.slot_sharing_group.as_bytes());
        hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A chain as a tree of lines.
fn description(vertex: &JobVertex) -> String {
    let mut text = String::new();
    describe(vertex, 0, "", "", &mut text);
    text
}

/// An operator behind `lead`, and what is chained to it behind `below`. A chain is a tree, each operator of it at a
/// higher index than the one before.
fn describe(vertex: &JobVertex, place: usize, lead: &str, below: &str, text: &mut String) {
    let Some(operator) = vertex.operators.get(place) else { return };
    text.push_str(&format!("{lead}{}<br/>", escaped(&operator.name)));
    let chained = operator.outputs.iter().filter_map(|output| match output.target {
        OutputTarget::Chained(next) if next > place => Some(next),
        _ => None,
    });
    let chained: Vec<usize> = chained.collect();
    for (number, next) in chained.iter().enumerate() {
        let (lead, deeper) = if number + 1 == chained.len() { ("+- ", "   ") } else { (":- ", ":  ") };
        describe(vertex, *next, &format!("{below}{lead}"), &format!("{below}{deeper}"), text);
    }
}

/// The dashboard takes descriptions for HTML, and names are the user's.
fn escaped(name: &str) -> String {
    let mut safe = String::new();
    for character in name.chars() {
        match character {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use millstream_model::job_graph::{Operator, OperatorOutput, sketch};

    use super::*;

    fn operator(name: &str, chained: &[usize]) -> Operator {
        let target = |place: &usize| OperatorOutput { tag: None, target: OutputTarget::Chained(*place) };
        Operator { outputs: chained.iter().map(target).collect(), ..sketch::operator(1, name) }
    }

    #[test]
    fn a_chain_is_described_as_flink_does_and_names_are_no_html() {
        let vertex = JobVertex {
            // The last one is chained to itself, as no graph of ours has it.
            operators: vec![
                operator("<b>", &[1, 3]),
                operator("left", &[2]),
                operator("deep", &[]),
                operator("right", &[3]),
            ],
            ..sketch::vertex(1, "chain", 1)
        };
        assert_eq!(description(&vertex), "&lt;b&gt;<br/>:- left<br/>:  +- deep<br/>+- right<br/>");
    }
}
