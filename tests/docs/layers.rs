//! The picture in CONTRIBUTING.md holds: a module of the crate uses only what stands below it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::{ItemMod, ItemUse, UseTree, visit::Visit};

use crate::pages::ROOT;

/// The row of each module, the topmost first: the names are what stands before two spaces.
fn rows() -> BTreeMap<String, usize> {
    let page = fs::read_to_string(format!("{ROOT}/CONTRIBUTING.md")).unwrap();
    let (_, picture) = page.split_once("```layers\n").unwrap();
    let lines = picture.lines().take_while(|line| *line != "```").enumerate();
    let names = |line: &str| -> Vec<_> {
        line.split("  ").next().unwrap_or_default().split(' ').map(str::to_owned).collect()
    };
    lines.flat_map(|(row, line)| names(line).into_iter().map(move |name| (name, row))).collect()
}

/// The modules of the crate that a file names, its tests left out.
#[derive(Default)]
struct Named(BTreeSet<String>);

impl Named {
    fn heads(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => drop(self.0.insert(path.ident.to_string())),
            UseTree::Name(name) => drop(self.0.insert(name.ident.to_string())),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.heads(tree)),
            UseTree::Rename(_) | UseTree::Glob(_) => {}
        }
    }
}

impl<'ast> Visit<'ast> for Named {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.ident != "tests" {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if let UseTree::Path(path) = &item.tree
            && path.ident == "crate"
        {
            self.heads(&path.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some((first, second)) = path.segments.first().zip(path.segments.iter().nth(1))
            && first.ident == "crate"
        {
            self.0.insert(second.ident.to_string());
        }
        syn::visit::visit_path(self, path);
    }
}

/// The files of a folder, with the top-level module of each.
fn files(folder: &Path, module: Option<&str>, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_stem().unwrap().to_str().unwrap();
        let module = module.unwrap_or(name).to_owned();
        if name == "tests" || ["lib", "main"].contains(&module.as_str()) {
            continue;
        } else if entry.is_dir() {
            files(&entry, Some(&module), found);
        } else {
            found.push((module, fs::read_to_string(entry).unwrap()));
        }
    }
}

#[test]
fn a_module_uses_only_what_stands_below_it() {
    let rows = rows();
    let mut found = Vec::new();
    files(&Path::new(ROOT).join("src"), None, &mut found);
    let mut wrong = BTreeSet::new();
    let mut uses = 0;
    for (module, text) in &found {
        let row = rows.get(module).unwrap_or_else(|| panic!("{module} is not in the picture"));
        let mut named = Named::default();
        named.visit_file(&syn::parse_file(text).unwrap());
        for other in named.0.iter().filter(|other| *other != module) {
            uses += 1;
            if rows.get(other).is_none_or(|other| other <= row) {
                wrong.insert(format!("{module} → {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "upwards, or of one line: {wrong:?}");
    assert!(uses > 100 && found.len() > 100, "{uses} uses in {} files: is all of it read?", found.len());
}
