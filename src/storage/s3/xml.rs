//! Reads and writes the few elements of XML that S3 uses. There are no attributes, no nesting of equal names and no entities but
//! the five of XML and characters by number, so a document cannot expand.

/// Returns the contents of each element `<name>` of `body`, in their order.
pub fn elements<'a>(body: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    either(body, [name]).map(|(_, inner)| inner)
}

/// Returns the names and the contents of the elements with these names, in their order.
pub fn either<'a, const N: usize>(body: &'a str, names: [&'a str; N]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let tags = names.map(|name| (name, format!("<{name}>"), format!("</{name}>")));
    let mut rest = body;
    std::iter::from_fn(move || {
        let mut from = rest;
        loop {
            let (_, after) = from.split_once('<')?;
            let at = rest.len() - after.len() - 1;
            if let Some((name, open, close)) = tags.iter().find(|(_, open, _)| rest[at..].starts_with(&**open)) {
                let (inner, after) = rest[at + open.len()..].split_once(&**close)?;
                rest = after;
                return Some((*name, inner));
            }
            from = after;
        }
    })
}

/// Returns the text of the first element `<name>`, without its escapes. `None` if there is no such element, or its text has
/// something that is no text.
pub fn text(body: &str, name: &str) -> Option<String> {
    unescaped(elements(body, name).next()?)
}

/// Returns whether a document is a whole element `<name>`, perhaps behind a declaration.
pub fn is_whole(body: &str, name: &str) -> bool {
    let Some((before, rest)) = body.trim_end().split_once(&format!("<{name}")) else { return false };
    let is_empty = rest.ends_with("/>") && !rest.contains('<');
    !before.contains("</") && (is_empty || rest.ends_with(&format!("</{name}>")))
}

/// Escapes a text for an element.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        let (entity, after) = after.split_once(';')?;
        out.push_str(before);
        out.push(character(entity)?);
        rest = after;
    }
    out.push_str(rest);
    (!out.is_empty() || text.is_empty()).then_some(out).filter(|_| !text.contains('<'))
}

fn character(entity: &str) -> Option<char> {
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_and_texts() {
        let body =
            "<?xml version=\"1.0\"?><R xmlns=\"x\"><E><K>a&amp;b</K></E>\n<E><K>&lt;&#x41;&#66;</K><M/></E></R>\n";
        assert!(is_whole(body, "R") && !is_whole(body, "E") && !is_whole(&body[..60], "R"));
        assert!(is_whole("<R/>", "R") && !is_whole("<R><M/>", "R"));
        let keys: Vec<_> = elements(body, "E").map(|e| text(e, "K").unwrap()).collect();
        assert_eq!(keys, ["a&b", "<AB"]);
        let both: Vec<_> = either("<A>1</A><AB>2</AB><B>3</B><A>4</A><B>5", ["A", "B"]).collect();
        assert_eq!(both, [("A", "1"), ("B", "3"), ("A", "4")]);
        assert_eq!((text(body, "M"), text("<K></K>", "K")), (None, Some(String::new())));
        assert_eq!(text(&format!("<K>{}</K>", escaped("<a&b>")), "K").unwrap(), "<a&b>");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for body in [
            "<K>&lol;</K>",
            "<K>a & b</K>",
            "<K><B>x</B></K>",
            "<K>&#xd800;</K>",
            "<K>",
            "</K>",
            "<K>&#99999999999;</K>",
        ] {
            assert_eq!(text(body, "K"), None, "{body}");
        }
    }
}
