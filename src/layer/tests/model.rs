//! Random layers against a model that keeps whole paths in maps and merges whole trees: slow, obvious, and sharing
//! nothing with the code under test.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::layer::merged::{Image, MergedEntry, NodeRef};
use crate::layer::testing::{Head, Tar, build, index_bytes, open};
use crate::tree::NodeKind;

type Path = Vec<String>;

#[derive(Debug, Clone)]
enum Kind {
    Dir,
    File,
    Symlink(&'static str),
    HardLink(String),
}

#[derive(Debug, Clone)]
struct Item {
    path: String,
    kind: Kind,
}

/// What the model has at a path.
#[derive(Debug, Clone, PartialEq)]
enum Obj {
    /// With its mode, `None`: implicit.
    Dir(Option<u32>),
    /// Number of the file: equal numbers are one file.
    File(usize),
    Symlink(usize, String),
    /// A hard link to the layers below.
    Below(Path),
}

#[derive(Debug, Default)]
struct Model {
    tree: BTreeMap<Path, Obj>,
    /// Mode of every file; its content is its number.
    modes: Vec<u32>,
}

#[derive(Debug, Default)]
struct Layer {
    own: BTreeMap<Path, Obj>,
    whiteouts: BTreeSet<Path>,
    opaque: BTreeSet<Path>,
    root: Option<u32>,
}

fn components(path: &str) -> Path {
    path.split('/')
        .filter(|name| !matches!(*name, "" | "."))
        .map(str::to_owned)
        .collect()
}

fn join(dir: &[String], name: &str) -> Path {
    [dir, &[name.to_owned()]].concat()
}

fn is_below(path: &[String], dir: &[String]) -> bool {
    path.len() > dir.len() && path.starts_with(dir)
}

type Refused = &'static str;

/// Where a path leads.
enum End {
    /// To what is no directory.
    Found(Path),
    /// To a place where nothing is, with the rest of the way from there.
    Nothing(Path, Path),
}

/// Follows `path`, and the symbolic links on its way.
fn walk(objects: &BTreeMap<Path, Obj>, path: &[String]) -> Result<End, Refused> {
    let mut todo: Vec<String> = path.iter().rev().cloned().collect();
    let mut at = Path::new();
    let mut budget = 40;
    while let Some(name) = todo.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = join(&at, &name);
        match objects.get(&next) {
            None => return Ok(End::Nothing(next, todo.into_iter().rev().collect())),
            Some(Obj::Dir(_)) => at = next,
            Some(_) if todo.is_empty() => return Ok(End::Found(next)),
            Some(Obj::Symlink(_, target)) => {
                budget -= 1;
                if budget < 0 {
                    return Err("loop");
                }
                if target.starts_with('/') {
                    at.clear();
                }
                todo.extend(components(target).into_iter().rev());
            }
            Some(_) => return Err("not a directory"),
        }
    }
    Err("a directory")
}

impl Layer {
    /// Where the directory `path` really is; makes what is missing.
    fn parent(&mut self, path: &[String], budget: &mut u32) -> Result<Path, Refused> {
        let mut at = Path::new();
        for name in path {
            at = self.descend(at, name, budget)?;
        }
        Ok(at)
    }

    fn descend(&mut self, at: Path, name: &str, budget: &mut u32) -> Result<Path, Refused> {
        if name == ".." {
            return Ok(at[..at.len().saturating_sub(1)].to_vec());
        }
        let next = join(&at, name);
        match self.own.get(&next).cloned() {
            None => {
                self.own.insert(next.clone(), Obj::Dir(None));
                Ok(next)
            }
            Some(Obj::Dir(_)) => Ok(next),
            Some(Obj::Symlink(_, target)) => {
                *budget = budget.checked_sub(1).ok_or("loop")?;
                let mut at = if target.starts_with('/') {
                    Path::new()
                } else {
                    at
                };
                for name in components(&target) {
                    at = self.descend(at, &name, budget)?;
                }
                Ok(at)
            }
            Some(_) => Err("child of a file"),
        }
    }

    /// The path a hard link's target has, and whether it is of this layer.
    fn target(&self, path: &[String]) -> Result<(Path, bool), Refused> {
        match walk(&self.own, path)? {
            End::Found(at) => Ok((at, true)),
            End::Nothing(at, rest) => {
                let hidden = (0..=at.len()).any(|length| self.whiteouts.contains(&at[..length]))
                    || (0..at.len()).any(|length| self.opaque.contains(&at[..length]));
                if hidden {
                    return Err("hidden");
                }
                if rest.iter().any(|name| name == "..") {
                    return Err("unresolved");
                }
                Ok(([at, rest].concat(), false))
            }
        }
    }

    fn forget_below(&mut self, path: &[String]) {
        self.own.retain(|known, _| !is_below(known, path));
        self.whiteouts.retain(|known| !is_below(known, path));
        self.opaque.retain(|known| !known.starts_with(path));
    }

    fn add(&mut self, item: &Item, mode: u32, modes: &mut Vec<u32>) -> Result<(), Refused> {
        let mut path = components(&item.path);
        let Some(name) = path.pop() else {
            self.root = Some(mode);
            return Ok(());
        };
        if name == ".wh..wh..opq" {
            let dir = self.parent(&path, &mut 40)?;
            self.opaque.insert(dir);
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(".wh.") {
            let dir = self.parent(&path, &mut 40)?;
            self.whiteouts.insert(join(&dir, hidden));
            return Ok(());
        }
        let target = match &item.kind {
            Kind::HardLink(target) => Some(self.target(&components(target))?),
            _ => None,
        };
        let dir = self.parent(&path, &mut 40)?;
        let at = join(&dir, &name);
        let obj = match &item.kind {
            Kind::Dir => {
                if !matches!(self.own.get(&at), Some(Obj::Dir(_))) {
                    self.forget_below(&at);
                }
                self.own.insert(at, Obj::Dir(Some(mode)));
                return Ok(());
            }
            Kind::File => {
                modes.push(mode);
                Obj::File(modes.len() - 1)
            }
            Kind::Symlink(target) => {
                modes.push(0o777);
                Obj::Symlink(modes.len() - 1, (*target).to_owned())
            }
            Kind::HardLink(_) => {
                let (target, own) = target.unwrap();
                if target.starts_with(&at) {
                    return Err("itself");
                }
                match (own, self.own.get(&target)) {
                    (true, Some(obj)) => {
                        if let Obj::File(number) = obj {
                            modes[*number] = mode;
                        }
                        obj.clone()
                    }
                    _ => Obj::Below(target),
                }
            }
        };
        self.forget_below(&at);
        self.own.insert(at, obj);
        Ok(())
    }
}

impl Model {
    /// The file at `path`, symbolic links on the way followed.
    fn file(&self, path: &[String]) -> Result<Obj, Refused> {
        match walk(&self.tree, path)? {
            End::Found(at) => Ok(self.tree[&at].clone()),
            End::Nothing(..) => Err("nothing there"),
        }
    }

    fn stack(&mut self, layer: Layer) -> Result<(), Refused> {
        let mut next = BTreeMap::new();
        for (path, obj) in &self.tree {
            let hidden = (1..=path.len()).any(|length| {
                let part = &path[..length];
                layer.whiteouts.contains(part)
                    || layer
                        .own
                        .get(part)
                        .is_some_and(|own| !matches!(own, Obj::Dir(_)))
            }) || (0..path.len()).any(|length| layer.opaque.contains(&path[..length]));
            // An opaque directory that its layer does not describe keeps the lower one's attributes.
            if !hidden {
                next.insert(path.clone(), obj.clone());
            }
        }
        for (path, own) in layer.own {
            let obj = match own {
                Obj::Below(target) => self.file(&target)?,
                Obj::Dir(None) => match next.get(&path) {
                    Some(Obj::Dir(mode)) => Obj::Dir(*mode),
                    _ => Obj::Dir(None),
                },
                own => own,
            };
            next.insert(path, obj);
        }
        // Where a directory came over something else, that something had no children.
        self.tree = next;
        Ok(())
    }
}

/// Folds and merges the naive way.
fn expected(layers: &[Vec<Item>]) -> Result<Model, Refused> {
    let mut model = Model::default();
    let mut mode = 0;
    for items in layers {
        let mut layer = Layer::default();
        for item in items {
            mode += 1;
            let mut modes = std::mem::take(&mut model.modes);
            let added = layer.add(item, mode, &mut modes);
            model.modes = modes;
            added?;
        }
        model.stack(layer)?;
    }
    Ok(model)
}

/// The tars of the same items; a file's content is its number, which counts files and symbolic links as the model does.
fn tars(layers: &[Vec<Item>]) -> Vec<Tar> {
    let (mut mode, mut files) = (0, 0);
    let mut out = Vec::new();
    for items in layers {
        let mut tar = Tar::new();
        for item in items {
            mode += 1;
            let marker = item.path.rsplit('/').next().unwrap().starts_with(".wh.");
            let (flag, link, data) = match &item.kind {
                Kind::Dir => (b'5', "", String::new()),
                Kind::File => (b'0', "", files.to_string()),
                Kind::Symlink(target) => (b'2', *target, String::new()),
                Kind::HardLink(target) => (b'1', target.as_str(), String::new()),
            };
            if matches!(item.kind, Kind::File | Kind::Symlink(_)) && !marker {
                files += 1;
            }
            let head = Head::new(item.path.as_bytes(), flag, data.len() as u64)
                .link(link.as_bytes())
                .set(100, format!("{mode:07o}\0").as_bytes());
            tar = tar.head(head).data(data.as_bytes());
        }
        out.push(tar.end());
    }
    out
}

fn actual(tars: &[Tar]) -> Result<Image, String> {
    let mut layers = Vec::new();
    for tar in tars {
        let builder = build(&tar.bytes, 4096).map_err(|error| error.to_string())?;
        // Odd chunks make the same index.
        let again = build(&tar.bytes, 511).map_err(|error| error.to_string())?;
        assert_eq!(index_bytes(&builder), index_bytes(&again));
        layers.push(open(&builder, &tar.bytes));
    }
    let image = Image::new(layers).map_err(|error| error.to_string())?;
    image
        .verify_lower_links()
        .map_err(|error| error.to_string())?;
    Ok(image)
}

fn compare(image: &Image, model: &Model) {
    let mut found = BTreeMap::new();
    let mut identities: BTreeMap<usize, NodeRef> = BTreeMap::new();
    image
        .walk(|path, entry| -> Result<(), crate::layer::ReadError> {
            let path = components(std::str::from_utf8(path).unwrap());
            let (obj, mode) = match entry {
                MergedEntry::Dir(dir) => {
                    let attributes = image.attributes_of_dir(dir)?;
                    let described = image.described_part(dir)?.map(|_| attributes.mode);
                    assert!(described.is_some() || attributes.mode == 0o755);
                    (Obj::Dir(described), 0)
                }
                MergedEntry::Leaf(node) => {
                    let attributes = image.attributes(*node)?;
                    let mut content = vec![0; attributes.size as usize];
                    match attributes.kind {
                        NodeKind::Symlink => {
                            let target =
                                String::from_utf8(image.symlink_target(*node)?.to_vec()).unwrap();
                            (Obj::Symlink(0, target), attributes.mode)
                        }
                        NodeKind::Regular => {
                            image
                                .layer(node.layer)
                                .read_at(node.node, 0, &mut content)?;
                            let number = String::from_utf8(content).unwrap().parse().unwrap();
                            assert_eq!(*identities.entry(number).or_insert(*node), *node);
                            (Obj::File(number), attributes.mode)
                        }
                        other => panic!("{other:?}"),
                    }
                }
            };
            found.insert(path, (obj, mode));
            Ok(())
        })
        .unwrap();
    let wanted: BTreeMap<_, _> = model
        .tree
        .iter()
        .map(|(path, obj)| {
            let entry = match obj {
                Obj::Dir(mode) => (Obj::Dir(*mode), 0),
                Obj::File(number) => (Obj::File(*number), model.modes[*number]),
                Obj::Symlink(number, target) => {
                    (Obj::Symlink(0, target.clone()), model.modes[*number])
                }
                Obj::Below(_) => panic!("unresolved"),
            };
            (path.clone(), entry)
        })
        .collect();
    assert_eq!(found, wanted);
    // Every name can be looked up as well, through tables and by probing; and what is not there cannot.
    for path in wanted.keys() {
        for name in ["a", "b", "c", ".wh.a", ".wh..wh..opq"] {
            let candidate = join(&path[..path.len() - 1], name);
            let there = image
                .resolve(candidate.join("/").as_bytes())
                .unwrap()
                .is_some();
            assert_eq!(there, wanted.contains_key(&candidate), "{candidate:?}");
        }
    }
}

fn item() -> impl Strategy<Value = Item> {
    let dirs = prop_oneof![4 => Just(""), 4 => Just("a/"), 2 => Just("b/"), 2 => Just("a/b/"), 1 => Just("b/a/"), 1 => Just("a/a/")];
    let name = prop_oneof![5 => Just("a"), 5 => Just("b"), 2 => Just(".wh.a"), 2 => Just(".wh.b"), 1 => Just(".wh..wh..opq")];
    let target = prop_oneof![
        Just("a"),
        Just("b"),
        Just("a/b"),
        Just("a/a"),
        Just("b/a"),
        Just("/b"),
        Just("a/b/a"),
        Just("b/b")
    ];
    let symlink = prop_oneof![
        Just("a"),
        Just("b"),
        Just("/a"),
        Just(".."),
        Just("../b"),
        Just("a/b"),
        Just("nowhere"),
        Just("/")
    ];
    let kind = prop_oneof![
        4 => Just(Kind::Dir),
        5 => Just(Kind::File),
        1 => symlink.prop_map(Kind::Symlink),
        2 => target.prop_map(|target| Kind::HardLink(target.to_owned())),
    ];
    (dirs, name, kind).prop_map(|(dir, name, kind)| Item {
        path: format!("{dir}{name}"),
        kind,
    })
}

fn check(layers: &[Vec<Item>]) {
    let model = expected(layers);
    let image = actual(&tars(layers));
    match (image, model) {
        (Ok(image), Ok(model)) => compare(&image, &model),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(why)) => panic!("accepted, the model refuses: {why}"),
        (Err(error), Ok(_)) => panic!("refused, the model accepts: {error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn folding_and_merging_agree_with_the_model(
        layers in prop::collection::vec(prop::collection::vec(item(), 0..7), 1..5)
    ) {
        check(&layers);
    }
}
