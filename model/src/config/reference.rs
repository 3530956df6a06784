//! The reference page, `docs/configuration.md`, written from the registry so that it cannot fall behind.

use super::{
    key::{Bounds, Definition},
    keys::GROUPS,
};

/// The whole page.
pub fn reference_markdown() -> String {
    let groups = GROUPS.iter().map(|group| {
        let rows: String = group.keys.iter().map(|key| row(key)).collect();
        format!("\n## {}\n\n{}\n\n{HEADER}{rows}", group.title, group.intro)
    });
    format!("{INTRO}{}", groups.collect::<String>())
}

const HEADER: &str = "| Key | Default | Type | Description |\n|---|---|---|---|\n";

fn row(key: &Definition) -> String {
    let name = format!("`{}`{}", key.name, if key.is_ours { " ◆" } else { "" });
    let default = key.default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
    let mut doc = key.doc.trim().to_owned();
    if key.bounds != Bounds::default() {
        doc.push_str(&format!(" Accepted: {}.", key.bounds));
    }
    if !key.aliases.is_empty() {
        doc.push_str(&format!(" Also accepted as `{}`.", key.aliases.join("`, `")));
    }
    format!("| {name} | {default} | {} | {doc} |\n", key.type_name)
}

const INTRO: &str = "\
<!-- Written by `reference_markdown` of model/src/config/reference.rs. Do not edit: change the keys in
     model/src/config/keys/ and run `UPDATE_DOCS=1 cargo test -p millstream-model reference`. -->

# Configuration

Everything that can be set has a *key*. Most keys are those of Apache Flink, so that an existing `config.yaml` can be
used; where a default is not Flink's, the description says so. Keys that Flink does not have are marked ◆.

## Where to set a key

A later place wins over an earlier one:

1. The default, as the tables below give it.
2. The file `conf/config.yaml`. Keys may be written flat, nested, or both:

   ```yaml
   taskmanager.numberOfTaskSlots: 2
   execution:
     checkpointing:
       interval: 10 s
       dir: /var/lib/millstream/checkpoints
   ```

   Flink's older form, `flink-conf.yaml` with one `key: value` per line, is read as well.
3. The environment: `MILLSTREAM_` and the key in capitals, with `_` for each `.` and `-`.

   ```sh
   export MILLSTREAM_TASKMANAGER_NUMBEROFTASKSLOTS=4
   ```
4. An argument `-Dkey=value`; of several for the same key, the last one.
5. The program itself.

Before anything starts, all values are checked. A value that is not accepted is an error that says which key it is for,
where it was set, and what would be accepted. A key that does not exist is reported together with the one that was
probably meant, and so are keys that contradict each other. Some keys have older names; these work too, and the newer
name wins where both are set in the same place.

## How to write a value

| Type | Form | Examples |
|---|---|---|
| boolean | `true` or `false` | `true` |
| integer, number | digits | `4`, `0.25` |
| string | as it is; nothing at all means none where the default is none | `localhost` |
| duration | a whole number and `d`, `h`, `min`, `s`, `ms`, `us` or `ns`; milliseconds without a unit | `10 s`, `500ms`, `1 h` |
| memory size | a whole number and `b`, `kb`, `mb`, `gb` or `tb`, in steps of 1024; bytes without a unit | `64mb`, `1 g` |
| list | a list of YAML, or parts between `;` | `a;b;'with;semicolon'` |
| map | `key:value` between `,` | `k1:v1,k2:v2` |
| ports | a port, a range, or several of these between `,` | `9249`, `9249-9260` |
| words | one of those listed; case, `-` and `_` do not matter | `EXACTLY_ONCE` |
";

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use super::{super::keys, *};

    #[test]
    fn the_reference_page_in_docs_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let page = reference_markdown();
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::write(path, &page).unwrap();
        }
        let written = fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page,
            "docs/configuration.md is stale: UPDATE_DOCS=1 cargo test -p millstream-model reference"
        );
    }

    #[test]
    fn every_key_has_a_row_of_four_cells_and_a_description() {
        for key in keys::all() {
            let row = row(key);
            assert_eq!(row.matches('|').count(), 5, "{row}");
            assert!(key.doc.trim().ends_with('.'), "{}", key.name);
            assert!(reference_markdown().contains(&row), "{}", key.name);
        }
    }
}
