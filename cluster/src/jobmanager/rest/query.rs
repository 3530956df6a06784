//! The query of an address: `name=value`, joined by `&`, in the encoding of forms.

use percent_encoding::percent_decode_str;

use super::answer::RestError;

/// The parameters of a request, in their order.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// If something in it is no UTF-8.
    pub(super) fn parse(text: Option<&str>) -> Result<Query, RestError> {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let parsed = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        });
        Ok(Query(parsed.collect::<Result<_, RestError>>()?))
    }

    /// The first value of a parameter that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// The values of a parameter that may be given several times, or as a list with commas, as Flink has it.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(known, value)| known == name && !value.is_empty());
        values.flat_map(|(_, value)| value.split(',').map(str::to_owned)).collect()
    }

    /// Refuses parameters that are none of these.
    pub(super) fn only(&self, names: &[&str]) -> Result<(), RestError> {
        match self.0.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(RestError::bad_request(format!(
                "there is no query parameter '{}' here; those are {}",
                name.escape_debug(),
                names.join(", ")
            ))),
        }
    }
}

fn decoded(text: &str) -> Result<String, RestError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(|text| text.into_owned()).map_err(|_| RestError::bad_request("a query parameter is no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_lists_are_split() {
        let query = Query::parse(Some("programArg=a%2Cb,c+d&programArg=%C3%A9&mode=cancel&empty=&flag")).unwrap();
        assert_eq!(query.all("programArg"), ["a", "b", "c d", "é"]);
        assert_eq!(query.get("mode"), Some("cancel"));
        assert_eq!(query.get("empty"), None);
        assert!(query.only(&["programArg", "mode", "empty", "flag"]).is_ok());
        assert!(query.only(&["mode"]).is_err());
        assert!(Query::parse(Some("a=%ff")).is_err());
        assert!(Query::parse(None).unwrap().0.is_empty());
    }
}
