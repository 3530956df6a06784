//! A job graph as text for Graphviz: `millstream info --graphviz ARTIFACT | dot -Tsvg > job.svg`.

use std::fmt::Write;

use millstream::model::job_graph::{JobGraph, JobVertex};

/// The graph: a box for each chain of operators, an arrow for each exchange.
pub fn dot(graph: &JobGraph) -> String {
    let mut text = format!("digraph {} {{\n", quoted(&graph.name));
    text.push_str("  rankdir=LR;\n  node [shape=box, style=rounded];\n");
    for (index, vertex) in graph.vertices.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  v{index} [label={}];", quoted(&label(vertex)));
    }
    for edge in &graph.edges {
        let partitioning = format!("{:?}", edge.partitioning).to_uppercase();
        let second = if edge.input == 0 { "" } else { " (second input)" };
        let label = quoted(&format!("{partitioning}{second}"));
        let _ = writeln!(text, "  v{} -> v{} [label={label}];", edge.source, edge.target);
    }
    text.push_str("}\n");
    text
}

fn label(vertex: &JobVertex) -> String {
    let mut lines: Vec<String> = vertex.operators.iter().map(|operator| operator.name.clone()).collect();
    lines.push(format!("parallelism {}", vertex.parallelism));
    if vertex.slot_sharing_group != "default" {
        lines.push(format!("slot sharing group {}", vertex.slot_sharing_group));
    }
    if vertex.on_own_thread {
        lines.push("threads of its own".to_owned());
    }
    lines.join("\n")
}

/// A text as Graphviz wants it. It reads `\n` as a line break, but also `\N`, `\G` and the like as names.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use millstream::prelude::*;

    use super::*;

    #[test]
    fn a_name_cannot_break_out_of_its_quotes() {
        assert_eq!(quoted("a \"b\" \\N\nc"), r#""a \"b\" \\N\nc""#);
    }

    #[test]
    fn every_vertex_and_every_edge_is_drawn_once() {
        let mut env = StreamExecutionEnvironment::local(Configuration::new());
        env.set_parallelism(3);
        let words = env.from_collection(["a \"quoted\" line".to_owned()]).name("say \"hello\"");
        words.key_by::<String, _>(|word| *word).count().name("count").discard();
        let text = dot(&env.job_graph("the \"job\"").expect("the job is well formed"));
        assert!(text.starts_with("digraph \"the \\\"job\\\"\" {\n"), "{text}");
        assert!(text.contains("v0 [label=\"say \\\"hello\\\"\\nparallelism 1\"];"), "{text}");
        assert!(text.contains("parallelism 3\"];") && text.contains("v0 -> v1 [label=\"HASH\"];"), "{text}");
        assert_eq!(text.matches("->").count(), 1, "{text}");
    }
}
