//! Paths and `file:` URIs, as they stand in the configuration.

use std::path::PathBuf;

/// The local path that a configured location means: a plain path, or a `file:` URI.
///
/// # Errors
/// If it names another kind of storage.
pub fn local_path(location: &str) -> Result<PathBuf, LocationError> {
    let Some((scheme, rest)) = location.split_once(':') else {
        return Ok(PathBuf::from(location));
    };
    let is_scheme = scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !is_scheme {
        return Ok(PathBuf::from(location));
    }
    if !scheme.eq_ignore_ascii_case("file") {
        return Err(LocationError { location: location.to_owned(), scheme: scheme.to_owned() });
    }
    // `file:/path`, `file:///path` and `file://localhost/path` are the same.
    let path = rest.strip_prefix("//").map_or(rest, |rest| rest.strip_prefix("localhost").unwrap_or(rest));
    Ok(PathBuf::from(path))
}

/// A location that is not a local directory.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "'{location}': storage of the kind '{scheme}:' is not supported yet; use a local directory, as a path or a file: URI"
)]
pub struct LocationError {
    pub location: String,
    pub scheme: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_uris_are_the_same_directory() {
        for location in ["/a/b", "file:/a/b", "file:///a/b", "file://localhost/a/b", "FILE:///a/b"] {
            assert_eq!(local_path(location), Ok(PathBuf::from("/a/b")), "{location}");
        }
        assert_eq!(local_path("a/b:c"), Ok(PathBuf::from("a/b:c")));
    }

    #[test]
    fn an_object_store_is_refused_by_name() {
        assert_eq!(local_path("s3://bucket/dir").unwrap_err().scheme, "s3");
    }
}
