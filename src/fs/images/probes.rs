//! Extended attributes that programs ask every file for: answered once for the whole mount while nobody has them.
//!
//! `ls -l` asks for the label and the access list of each file, `ls` in colour for capabilities, and the kernel keeps no answer.
//! But they stop asking a device that says "not supported", so that is the answer while no layer of the store has such an
//! attribute. As soon as one has, it is "no such attribute" for all the others: all images are one device, and what a program
//! has seen of one it believes of the next.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use super::Superblock;
use super::namespace::View;
use crate::fs::api::FsError;
use crate::layer::XattrKinds;
use crate::oci::DiffId;

/// What the layers of a view have.
#[derive(Debug, Default)]
pub(super) struct Probes(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    /// The view that `all` is true of; kept weakly, which is enough to tell it from another.
    of: Weak<View>,
    all: XattrKinds,
    layers: HashMap<DiffId, XattrKinds>,
}

impl Superblock {
    /// Refuses to be asked for an attribute of a kind that no layer has.
    pub(super) fn probe(&self, name: &[u8]) -> Result<(), FsError> {
        let kind = XattrKinds::of(name);
        match kind.is_probed() && !self.xattr_kinds().meets(kind) {
            true => Err(FsError::Unsupported),
            false => Ok(()),
        }
    }

    fn xattr_kinds(&self) -> XattrKinds {
        let view = self.view();
        let is_of = |state: &State| std::ptr::eq(state.of.as_ptr(), Arc::as_ptr(&view));
        {
            let state = self.probes.0.read();
            if is_of(&state) {
                return state.all;
            }
        }
        let mut state = self.probes.0.write();
        if is_of(&state) {
            return state.all;
        }
        let layers = view.names.layers();
        state.layers.retain(|layer, _| layers.contains(layer));
        let mut all = XattrKinds::default();
        for layer in layers {
            let known = state.layers.get(&layer).copied();
            let kinds = known.or_else(|| {
                let index = self.store.layer_index(&layer).ok()?;
                let kinds = index.xattr_kinds();
                state.layers.insert(layer, kinds);
                Some(kinds)
            });
            // What a damaged index hides may be there again tomorrow.
            all = all.with(kinds.unwrap_or(XattrKinds::ALL));
        }
        state.all = all;
        state.of = Arc::downgrade(&view);
        all
    }
}
