//! Names: of nodes, services, instances, tags and containers, checked where they enter.

use std::fmt;
use std::str::FromStr;

use crate::addr::serde_through_string;
use crate::{Error, ErrorKind, Result};

/// A DNS label (RFC 1035, 2.3.1, with RFC 1123's leading digit): 1 to 63 of a-z, 0-9 and `-`, no `-` at either end.
fn check_label(what: &str, text: &str, hint: &str) -> Result<String> {
    let lower = text.to_ascii_lowercase();
    let valid = (1..=63).contains(&lower.len())
        && lower
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !lower.starts_with('-')
        && !lower.ends_with('-');
    if valid {
        return Ok(lower);
    }
    Err(Error::new(ErrorKind::InvalidInput, format!("{text:?} can't be the name of a {what}")).with_hint(format!(
        "a name is a DNS label: 1 to 63 letters, digits and hyphens, with no hyphen at either end{hint}"
    )))
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal, $hint:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name, in lower case.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                check_label($what, text, $hint).map(|label| Self(label.into()))
            }
        }

        impl_text!($name);
    };
}

macro_rules! impl_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        serde_through_string!($name);
    };
}

label!(
    /// A node's name: a DNS label, lower-cased.
    ///
    /// ```
    /// use arpanet_core::NodeName;
    /// assert_eq!("Node1".parse::<NodeName>()?.as_str(), "node1");
    /// assert!("my_host".parse::<NodeName>().is_err());
    /// # Ok::<(), arpanet_core::Error>(())
    /// ```
    NodeName, "node", "; choose one with --name"
);

label!(
    /// A service's name: a DNS label, lower-cased.
    ///
    /// ```
    /// use arpanet_core::ServiceName;
    /// assert_eq!("web".parse::<ServiceName>()?.as_str(), "web");
    /// assert!("web.shop".parse::<ServiceName>().is_err());
    /// # Ok::<(), arpanet_core::Error>(())
    /// ```
    ServiceName, "service", ""
);

label!(
    /// A tag of an instance: a DNS label, since `tag.service` is a name too.
    ///
    /// ```
    /// use arpanet_core::Tag;
    /// assert_eq!("v2".parse::<Tag>()?.as_str(), "v2");
    /// assert!("".parse::<Tag>().is_err());
    /// # Ok::<(), arpanet_core::Error>(())
    /// ```
    Tag, "tag", ""
);

/// A container's name, as engines have them: 1 to 100 letters, digits, `_`, `.` and `-`, beginning with a letter or digit.
///
/// ```
/// use arpanet_core::ContainerName;
/// assert_eq!("shop_web_1".parse::<ContainerName>()?.as_str(), "shop_web_1");
/// assert!("-w1".parse::<ContainerName>().is_err());
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerName(std::sync::Arc<str>);

impl ContainerName {
    /// The name, as it was written: engines tell upper from lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let valid = (1..=100).contains(&text.len())
            && text.starts_with(|letter: char| letter.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if valid {
            return Ok(Self(text.into()));
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{text:?} can't be the name of a container"),
        )
        .with_hint(
            "a container's name is 1 to 100 letters, digits, _, . and -, and begins with a letter or digit",
        ))
    }
}

impl_text!(ContainerName);

/// What tells one instance from every other in the cluster: 1 to 128 printable ASCII characters without space, `/` or `"`.
///
/// ```
/// use arpanet_core::InstanceId;
/// assert_eq!("0.2:w1:10.1.0.5".parse::<InstanceId>()?.as_str(), "0.2:w1:10.1.0.5");
/// assert!("two words".parse::<InstanceId>().is_err());
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(std::sync::Arc<str>);

impl InstanceId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let valid = (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'"');
        if valid {
            return Ok(Self(text.into()));
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{text:?} can't be the id of an instance"),
        )
        .with_hint("an id is 1 to 128 printable ASCII characters without space, slash or quote"))
    }
}

impl_text!(InstanceId);

/// What a runtime calls a container's place in one of its networks: 1 to 64 letters and digits.
///
/// ```
/// use arpanet_core::EndpointId;
/// assert_eq!("6a9c03".parse::<EndpointId>()?.as_str(), "6a9c03");
/// assert!("6a9c/03".parse::<EndpointId>().is_err());
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(std::sync::Arc<str>);

impl EndpointId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EndpointId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let valid =
            (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if valid {
            return Ok(Self(text.into()));
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{text:?} can't be the id of an endpoint"),
        ))
    }
}

impl_text!(EndpointId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_node_name_names_the_way_out() {
        let error = "my_host".parse::<NodeName>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.hint().unwrap().contains("--name"));
    }

    #[test]
    fn labels_have_1_to_63_characters() {
        assert!("a".repeat(63).parse::<ServiceName>().is_ok());
        assert!("a".repeat(64).parse::<ServiceName>().is_err());
        assert!("".parse::<ServiceName>().is_err());
    }
}
