//! Links that have a name: small files, built in, that say where their figures are from.

use crate::spec::LinkSpec;

/// Name and file of each, from near to far.
const LINKS: [(&str, &str); 7] = [
    ("loopback", include_str!("../links/loopback.toml")),
    ("lan", include_str!("../links/lan.toml")),
    ("metro", include_str!("../links/metro.toml")),
    ("cross-country", include_str!("../links/cross-country.toml")),
    ("transatlantic", include_str!("../links/transatlantic.toml")),
    ("wifi-lossy", include_str!("../links/wifi-lossy.toml")),
    ("lte", include_str!("../links/lte.toml")),
];

/// The named links: name, and the file as users may copy it.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    LINKS.into_iter()
}

/// The link of that name. `0` is another name of `loopback`.
pub(crate) fn find(name: &str) -> Option<LinkSpec> {
    let name = if name == "0" { "loopback" } else { name };
    let (_, text) = LINKS.into_iter().find(|(known, _)| *known == name)?;
    LinkSpec::of_toml(text).ok()
}

pub(crate) fn unknown(name: &str) -> String {
    let names: Vec<&str> = LINKS.iter().map(|(name, _)| *name).collect();
    format!(
        "no link is named '{name}'; known: {}; or write it as rtt=40ms,rate=100mbit, or name a file that ends in .toml",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_link_and_its_file_says_why() {
        for (name, text) in all() {
            let link = LinkSpec::of_toml(text).unwrap_or_else(|reason| panic!("{name}: {reason}"));
            assert_eq!(LinkSpec::parse(name).unwrap(), link);
            assert!(text.starts_with("# ") && text.contains("Source"), "{name}");
        }
        assert_eq!(LinkSpec::parse("0").unwrap(), LinkSpec::default());
    }

    #[test]
    fn they_go_from_near_to_far() {
        let rtts: Vec<_> = ["loopback", "lan", "metro", "cross-country", "transatlantic"]
            .map(|name| LinkSpec::parse(name).unwrap().rtt())
            .into();
        assert!(rtts.is_sorted());
    }
}
