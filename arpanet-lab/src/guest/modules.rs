//! The kernel's modules: where they are, and in which order they go in.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Every module of a kernel, by its name with underscores.
pub(super) struct Modules(BTreeMap<String, PathBuf>);

impl Modules {
    /// Those below a folder, at any depth.
    pub(super) fn find(folder: &Path) -> io::Result<Self> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let (path, kind) = {
                    let entry = entry?;
                    (entry.path(), entry.file_type()?)
                };
                if kind.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "ko") {
                    let name = path.file_stem().unwrap_or_default().to_string_lossy();
                    found.insert(canonical(&name), path);
                }
            }
        }
        Ok(Self(found))
    }

    /// The files of these modules and of all that they need, each after those that it needs.
    pub(super) fn in_order(&self, wanted: &[String]) -> io::Result<Vec<PathBuf>> {
        let names = order(wanted, &mut |name| {
            let path = self.path(name)?;
            Ok(needs(&fs::read(path)?))
        })?;
        names.iter().map(|name| self.path(name).cloned()).collect()
    }

    fn path(&self, name: &str) -> io::Result<&PathBuf> {
        self.0.get(name).ok_or_else(|| {
            let message = format!("the guest's kernel has no module {name}");
            io::Error::new(io::ErrorKind::NotFound, message)
        })
    }
}

/// The kernel takes hyphens and underscores for one.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The names and all that they need, each once, after those that it needs.
fn order(
    wanted: &[String],
    needs: &mut impl FnMut(&str) -> io::Result<Vec<String>>,
) -> io::Result<Vec<String>> {
    fn add(
        name: String,
        needs: &mut impl FnMut(&str) -> io::Result<Vec<String>>,
        order: &mut Vec<String>,
    ) -> io::Result<()> {
        if order.contains(&name) {
            return Ok(());
        }
        for needed in needs(&name)? {
            add(needed, needs, order)?;
        }
        order.push(name);
        Ok(())
    }
    let mut order = Vec::new();
    for name in wanted {
        add(canonical(name), needs, &mut order)?;
    }
    Ok(order)
}

/// What a module says that it needs: `depends=` in its section `.modinfo`, whose strings end with a zero.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|part| part == KEY) else {
        return Vec::new();
    };
    let list = module[at + KEY.len()..].split(|byte| *byte == 0).next();
    String::from_utf8_lossy(list.unwrap_or_default())
        .split(',')
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_stands_in_it() {
        let module = b"\x7fELF\0license=GPL v2\0depends=udp_tunnel,libchacha-x86\0name=wireguard\0";
        assert_eq!(needs(module), ["udp_tunnel", "libchacha_x86"]);
        assert!(needs(b"\0depends=\0name=veth\0").is_empty());
        assert!(needs(b"no module").is_empty());
    }

    #[test]
    fn each_comes_once_and_after_what_it_needs() {
        let mut needs = |name: &str| {
            Ok(match name {
                "bridge" => vec!["stp".to_owned(), "llc".to_owned()],
                "stp" => vec!["llc".to_owned()],
                _ => Vec::new(),
            })
        };
        let wanted = ["veth", "bridge", "llc"].map(str::to_owned);
        let ordered = order(&wanted, &mut needs).unwrap();
        assert_eq!(ordered, ["veth", "llc", "stp", "bridge"]);
    }
}
