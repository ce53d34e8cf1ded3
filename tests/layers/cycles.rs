//! Checks that the files of a layer have no import cycle. A `mod.rs` and the files below it count as one module.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Modules, Names, module, sources};

type Graph = BTreeMap<Names, BTreeSet<Names>>;

/// Returns the imports between modules of the same layer.
fn graph() -> Graph {
    let sources = sources();
    let modules = Modules::of(&sources);
    let mut graph = Graph::new();
    for source in &sources {
        let here = module(&source.path);
        let targets = modules.imports(source).into_iter().map(|(_, home)| home);
        let same_layer = |target: &Names| !target.is_empty() && target.first() == here.first();
        let related = |target: &Names| target.starts_with(&here) || here.starts_with(target);
        let targets = targets.filter(|target| same_layer(target) && !related(target)).collect();
        graph.insert(here, targets);
    }
    graph
}

/// Returns the modules that are reachable from a module by one or more imports.
fn reachable(graph: &Graph, from: &Names) -> BTreeSet<Names> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        for next in graph.get(at).into_iter().flatten() {
            if found.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    found
}

/// Returns the groups of modules that import each other.
fn circles(graph: &Graph) -> BTreeSet<BTreeSet<String>> {
    let reach: BTreeMap<&Names, BTreeSet<Names>> = graph.keys().map(|from| (from, reachable(graph, from))).collect();
    let mut found = BTreeSet::new();
    for (from, reached) in &reach {
        if reached.contains(*from) {
            let group = reached.iter().filter(|to| reach.get(to).is_some_and(|back| back.contains(*from)));
            found.insert(group.map(|names| names.join("/")).collect());
        }
    }
    found
}

#[test]
fn the_files_of_a_layer_do_not_import_each_other_in_a_circle() {
    let found = circles(&graph());
    assert!(found.is_empty(), "files that import each other in a circle: {found:#?}");
}

#[test]
fn a_circle_is_found_also_through_a_re_export() {
    let names = |text: &str| text.split('/').map(str::to_owned).collect::<Names>();
    let edges = [("a/x", "a/y"), ("a/y", "a/z"), ("a/z", "a/x"), ("a/z", "a/w"), ("a/w", "a/v")];
    let mut graph = Graph::new();
    for (from, to) in edges {
        graph.entry(names(from)).or_default().insert(names(to));
    }
    let circle: BTreeSet<String> = ["a/x", "a/y", "a/z"].map(String::from).into();
    assert_eq!(circles(&graph), BTreeSet::from([circle]));
}
