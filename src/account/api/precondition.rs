//! What a change says that it knows of what is there: whoever has not seen what somebody else saved does not write over it.
//! Source: RFC 9110, section 13.

use http::HeaderMap;
use http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};

use super::problem::Problem;
use super::saved::etag;
use crate::store::{Over, Overview};

/// What must be there for a change to be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    /// Nothing.
    Nothing,
    /// Something.
    Something,
    /// What one of these strong entity tags names. Without any it is nothing that is ever there.
    OneOf(Vec<String>),
}

impl Precondition {
    /// What a request to save says.
    pub(super) fn of_save(headers: &HeaderMap) -> Result<Self, Problem> {
        match (list(headers, &IF_MATCH)?, list(headers, &IF_NONE_MATCH)?) {
            (None, None) => Err(Problem::PreconditionRequired),
            (Some(list), None) => {
                Self::parse(&list).ok_or(Problem::Malformed("If-Match must be `*` or a list of entity tags"))
            }
            (None, Some(list)) if list.trim() == "*" => Ok(Self::Nothing),
            (None, Some(_)) => Err(Problem::Malformed("If-None-Match must be `*`")),
            (Some(_), Some(_)) => Err(Problem::Malformed("send If-Match or If-None-Match, not both")),
        }
    }

    /// What a request to remove says.
    pub(super) fn of_removal(headers: &HeaderMap) -> Result<Self, Problem> {
        match Self::of_save(headers)? {
            Self::Nothing => Err(Problem::Malformed("nothing can be removed where nothing is: send If-Match")),
            precondition => Ok(precondition),
        }
    }

    /// Over what the change is to be made, if that is what is `there`.
    pub(super) fn over<'a>(&self, there: Option<&'a Overview>) -> Result<Over<'a>, Problem> {
        match (self, there) {
            (Self::Nothing, None) => Ok(Over::Nothing),
            (Self::Something, Some(there)) => Ok(Over::This(&there.revision)),
            (Self::OneOf(tags), Some(there)) if tags.contains(&etag(&there.revision)) => {
                Ok(Over::This(&there.revision))
            }
            _ => Err(Problem::Changed),
        }
    }

    fn parse(list: &str) -> Option<Self> {
        if list.trim() == "*" { Some(Self::Something) } else { tags(list).map(Self::OneOf) }
    }
}

/// A header whose value is a list, whole; nothing if it is not there.
fn list(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Problem> {
    let values = headers.get_all(name).iter().map(|value| value.to_str());
    let values: Vec<&str> =
        values.collect::<Result<_, _>>().map_err(|_| Problem::Malformed("an entity tag is ASCII"))?;
    Ok(Some(values.join(",")).filter(|_| !values.is_empty()))
}

/// The strong ones of a list of entity tags, as they stand there; a weak one is never what is meant.
fn tags(list: &str) -> Option<Vec<String>> {
    let (mut tags, mut count, mut rest) = (Vec::new(), 0, list);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return (count > 0).then_some(tags);
        }
        let (is_weak, opaque) = rest.strip_prefix("W/").map_or((false, rest), |opaque| (true, opaque));
        let end = opaque.strip_prefix('"')?.find('"')? + 2;
        let (tag, after) = opaque.split_at(end);
        if !tag.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        if !is_weak {
            tags.push(tag.to_owned());
        }
        count += 1;
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of_save(headers: &[(HeaderName, &'static str)]) -> Option<Precondition> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| {
            map.append(name, value);
        });
        Precondition::of_save(&map).ok()
    }

    #[test]
    fn a_list_of_entity_tags_is_read_as_http_has_it() {
        let one_of = |tags: &[&str]| Some(Precondition::OneOf(tags.iter().map(|&tag| tag.to_owned()).collect()));
        assert_eq!(of_save(&[(IF_MATCH, "*")]), Some(Precondition::Something));
        assert_eq!(of_save(&[(IF_NONE_MATCH, " * ")]), Some(Precondition::Nothing));
        assert_eq!(of_save(&[(IF_MATCH, r#""a""#)]), one_of(&[r#""a""#]));
        assert_eq!(of_save(&[(IF_MATCH, r#", "a,b" ,W/"c","" "#)]), one_of(&[r#""a,b""#, r#""""#]));
        assert_eq!(of_save(&[(IF_MATCH, r#""a""#), (IF_MATCH, r#""b""#)]), one_of(&[r#""a""#, r#""b""#]));
        assert_eq!(of_save(&[(IF_MATCH, r#"W/"a""#)]), one_of(&[]), "a weak one is never it");
    }

    #[test]
    fn what_is_no_precondition_is_refused() {
        for bad in ["", ",", "a", r#""a"#, r#""a" "b""#, r#"*, "a""#, r#"w/"a""#, r#""a b""#, r#""a"x"#, "**"] {
            assert_eq!(of_save(&[(IF_MATCH, bad)]), None, "{bad}");
        }
        assert_eq!(of_save(&[(IF_NONE_MATCH, r#""a""#)]), None);
        assert_eq!(of_save(&[(IF_MATCH, "*"), (IF_NONE_MATCH, "*")]), None);
        assert!(matches!(Precondition::of_save(&HeaderMap::new()), Err(Problem::PreconditionRequired)));
        let nothing = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("*"))]);
        assert!(matches!(Precondition::of_removal(&nothing), Err(Problem::Malformed(_))));
    }
}
