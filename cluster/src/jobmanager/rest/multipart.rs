//! Bodies of several parts, `multipart/form-data` (RFC 7578), as they come in: a decider that is fed with pieces of any
//! size. What it holds of a body is a piece and the length of a boundary, whatever a client sends.

use std::mem;

use memchr::memmem;
use percent_encoding::percent_decode_str;

/// RFC 2046 allows 70 characters.
const BOUNDARY_MAX: usize = 200;
/// Of what stands before the first part, and of the head of a part, in bytes.
const HEAD_MAX: usize = 16 << 10;
const HEAD_END: &[u8] = b"\r\n\r\n";

/// What was found in a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// A part begins.
    Part(Part),
    /// More of its content.
    Content(Vec<u8>),
    /// It has ended.
    PartEnd,
}

/// The head of a part.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Part {
    /// Of the field.
    pub(super) name: String,
    /// There if it is a file; as the client says it, which may be anything.
    pub(super) file_name: Option<String>,
}

/// A body that is no `multipart/form-data`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the body is no multipart/form-data: {0}")]
pub(super) struct Malformed(&'static str);

/// Reads a body.
#[derive(Debug)]
pub(super) struct Multipart {
    /// The end of a line, two dashes, and the boundary.
    delimiter: Vec<u8>,
    /// What has come and was not taken yet.
    buffer: Vec<u8>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Before the first part.
    Preamble,
    /// Right behind a delimiter.
    Delimiter,
    Head,
    Content,
    /// Behind the last part.
    Epilogue,
}

/// The boundary that a `Content-Type` names, if it is `multipart/form-data`.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters_of(parameters).into_iter().find(|(name, _)| name == "boundary")?.1;
    (1..=BOUNDARY_MAX).contains(&boundary.len()).then_some(boundary)
}

impl Multipart {
    pub(super) fn new(boundary: &str) -> Multipart {
        // As if a line had ended before the body, so that all delimiters are alike.
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        Multipart { delimiter, buffer: b"\r\n".to_vec(), place: Place::Preamble }
    }

    /// A piece of the body has come. What is in it is asked for with [`Multipart::next`], until there is nothing more.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        // Nothing behind the last part counts.
        if self.place != Place::Epilogue {
            self.buffer.extend_from_slice(piece);
        }
    }

    /// What was found next; `None` until more has come.
    pub(super) fn next(&mut self) -> Result<Option<Found>, Malformed> {
        loop {
            match self.place {
                Place::Preamble => match memmem::find(&self.buffer, &self.delimiter) {
                    Some(at) => self.go_on(at + self.delimiter.len(), Place::Delimiter),
                    None if self.buffer.len() > HEAD_MAX => {
                        return Err(Malformed("it does not begin with its boundary"));
                    }
                    None => return Ok(None),
                },
                Place::Delimiter => match self.behind_delimiter()? {
                    None => return Ok(None),
                    Some((length, place)) => self.go_on(length, place),
                },
                Place::Head => return self.head(),
                Place::Content => match memmem::find(&self.buffer, &self.delimiter) {
                    Some(0) => {
                        self.go_on(self.delimiter.len(), Place::Delimiter);
                        return Ok(Some(Found::PartEnd));
                    }
                    Some(at) => return Ok(Some(self.content(at))),
                    // Its end may be the beginning of a delimiter.
                    None => match self.buffer.len().saturating_sub(self.delimiter.len() - 1) {
                        0 => return Ok(None),
                        length => return Ok(Some(self.content(length))),
                    },
                },
                Place::Epilogue => {
                    self.buffer.clear();
                    return Ok(None);
                }
            }
        }
    }

    /// The body has ended.
    ///
    /// # Errors
    /// If the last part had not.
    pub(super) fn finish(&self) -> Result<(), Malformed> {
        if self.place == Place::Epilogue { Ok(()) } else { Err(Malformed("it ends within a part")) }
    }

    fn go_on(&mut self, length: usize, place: Place) {
        self.buffer.drain(..length);
        self.place = place;
    }

    fn content(&mut self, length: usize) -> Found {
        let rest = self.buffer.split_off(length);
        Found::Content(mem::replace(&mut self.buffer, rest))
    }

    /// What a delimiter is followed by: how long that is, and what comes then.
    fn behind_delimiter(&self) -> Result<Option<(usize, Place)>, Malformed> {
        if self.buffer.starts_with(b"--") {
            return Ok(Some((2, Place::Epilogue)));
        }
        let padding = self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        match &self.buffer[padding..] {
            [b'\r', b'\n', ..] => Ok(Some((padding + 2, Place::Head))),
            [] | [b'\r'] | [b'-'] if padding < BOUNDARY_MAX => Ok(None),
            _ => Err(Malformed("a boundary is followed by what cannot follow it")),
        }
    }

    fn head(&mut self) -> Result<Option<Found>, Malformed> {
        // A part need not have any header, and begins with an empty line then.
        let (length, behind) = if self.buffer.starts_with(b"\r\n") {
            (0, 2)
        } else {
            match memmem::find(&self.buffer, HEAD_END) {
                Some(at) => (at, at + HEAD_END.len()),
                None if self.buffer.len() > HEAD_MAX => return Err(Malformed("the head of a part is too long")),
                None => return Ok(None),
            }
        };
        if length > HEAD_MAX {
            return Err(Malformed("the head of a part is too long"));
        }
        let head = String::from_utf8_lossy(&self.buffer[..length]).into_owned();
        // An end of line belongs to the delimiter that may follow at once, as that of a part without content.
        self.go_on(behind, Place::Content);
        Ok(Some(Found::Part(part_of(&head)?)))
    }
}

fn part_of(head: &str) -> Result<Part, Malformed> {
    let headers = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let mut dispositions = headers.filter(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"));
    let Some((_, disposition)) = dispositions.next() else {
        return Err(Malformed("a part has no Content-Disposition"));
    };
    let (kind, parameters) = disposition.split_once(';').unwrap_or((disposition, ""));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err(Malformed("a part is no form-data"));
    }
    let mut part = Part::default();
    for (name, value) in parameters_of(parameters) {
        match name.as_str() {
            "name" => part.name = value,
            "filename" => part.file_name = part.file_name.or(Some(value)),
            // RFC 5987: charset'language'value. It is the better one where both are there.
            "filename*" => {
                let encoded = value.rsplit('\'').next().unwrap_or_default();
                part.file_name = Some(percent_decode_str(encoded).decode_utf8_lossy().into_owned());
            }
            _ => {}
        }
    }
    Ok(part)
}

/// `; name=value; name="value"`, with names in lower case.
fn parameters_of(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        let Some((name, after)) = rest.split_once('=') else { return parameters };
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        parameters.push((name.trim().to_ascii_lowercase(), value));
        rest = after;
    }
}

/// A text up to its closing quote, and what follows.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            // Browsers escape quotes otherwise and leave backslashes as they are: paths have them.
            '\\' if text[at + 1..].starts_with(['"', '\\']) => value.extend(characters.next().map(|(_, next)| next)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of these parts, as the boundary of the tests delimits them.
    fn body(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (head, content) in parts {
            body.extend_from_slice(format!("--AaB03x\r\n{head}\r\n\r\n").as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--AaB03x--\r\n");
        body
    }

    /// All parts with their content, from pieces of this size.
    fn read(body: &[u8], piece: usize) -> Result<Vec<(Part, Vec<u8>)>, Malformed> {
        let mut multipart = Multipart::new("AaB03x");
        let mut parts = Vec::new();
        for piece in body.chunks(piece.max(1)) {
            multipart.feed(piece);
            while let Some(found) = multipart.next()? {
                match found {
                    Found::Part(part) => parts.push((part, Vec::new())),
                    Found::Content(more) => parts.last_mut().expect("a part has begun").1.extend(more),
                    Found::PartEnd => {}
                }
            }
            assert!(multipart.buffer.len() <= HEAD_MAX + piece.len() + 2, "it holds {}", multipart.buffer.len());
        }
        multipart.finish()?;
        Ok(parts)
    }

    const FILE: &str = "Content-Disposition: form-data; name=\"jarfile\"; filename=\"job\"";

    #[test]
    fn the_size_of_pieces_makes_no_difference() {
        let content = b"\r\n--AaB03\r\n\r\n--AaB03y\r\n-\r\r\n".repeat(3);
        let parts: [(&str, &[u8]); 3] =
            [(FILE, &content), ("content-disposition:form-data;name=request", b"{}"), (FILE, b"")];
        let body = body(&parts);
        for piece in 1..body.len() + 1 {
            let read = read(&body, piece).unwrap();
            assert_eq!(read.len(), 3, "{piece}");
            assert_eq!(read[0].1, content, "{piece}");
            assert_eq!(read[0].0, Part { name: "jarfile".to_owned(), file_name: Some("job".to_owned()) });
            assert_eq!((read[1].0.name.as_str(), &read[1].1[..]), ("request", &b"{}"[..]));
            assert_eq!(read[1].0.file_name, None);
            assert!(read[2].1.is_empty());
        }
    }

    #[test]
    fn a_body_that_is_cut_off_or_none_is_an_error() {
        let whole = body(&[(FILE, b"content")]);
        for length in 0..whole.len() - 4 {
            assert!(read(&whole[..length], 1 << 20).is_err(), "{length}");
        }
        for bad in [&b"no boundary"[..], b"--AaB03xx\r\n", &[b'x'; 2 * HEAD_MAX], b"--AaB03x\r\n\r\n"] {
            assert!(read(bad, 100).is_err());
        }
        let endless = [b"--AaB03x\r\n".as_slice(), &[b'x'; 2 * HEAD_MAX]].concat();
        assert_eq!(read(&endless, 1000), Err(Malformed("the head of a part is too long")));
    }

    #[test]
    fn names_come_in_many_forms() {
        let name = |head: &str| read(&body(&[(head, b"")]), 1 << 20).unwrap()[0].0.file_name.clone().unwrap();
        let of = |file: &str| name(&format!("Content-Disposition: form-data; name=a; {file}"));
        assert_eq!(of("filename=plain.bin"), "plain.bin");
        assert_eq!(of(r#"filename="a \"b\" c;d=e""#), "a \"b\" c;d=e");
        assert_eq!(of(r#"filename="C:\dir\file""#), r"C:\dir\file");
        assert_eq!(of("filename=\"x\"; filename*=UTF-8''caf%C3%A9"), "café");
        assert_eq!(of("filename=\"../../etc/passwd\""), "../../etc/passwd");
        assert_eq!(of("filename=\""), "");
    }

    #[test]
    fn a_boundary_is_found_in_the_content_type() {
        assert_eq!(boundary("multipart/form-data; boundary=AaB03x").as_deref(), Some("AaB03x"));
        assert_eq!(boundary("Multipart/Form-Data; charset=x; Boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(boundary("multipart/form-data"), None);
        assert_eq!(boundary("multipart/form-data; boundary="), None);
        assert_eq!(boundary("application/json; boundary=x"), None);
        assert_eq!(boundary(&format!("multipart/form-data; boundary={}", "x".repeat(300))), None);
    }

    /// Random bodies of what a parser looks for, with a seed that says which.
    #[test]
    fn nothing_that_comes_makes_it_panic_or_hold_more_than_a_piece() {
        let words: [&[u8]; 8] =
            [b"\r\n", b"--", b"--AaB03x", b"\r\n--AaB03x", b"x", FILE.as_bytes(), b"\r\n\r\n", b"\xff"];
        let mut seed = 0x5EED_u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for _ in 0..20_000 {
            let body: Vec<u8> = (0..random(30)).flat_map(|_| words[random(words.len())].to_vec()).collect();
            let (at_once, in_pieces) = (read(&body, usize::MAX), read(&body, 1 + random(9)));
            assert_eq!(at_once.is_ok(), in_pieces.is_ok(), "{:?}", String::from_utf8_lossy(&body));
            assert!(at_once.is_err() || at_once == in_pieces);
        }
    }
}
