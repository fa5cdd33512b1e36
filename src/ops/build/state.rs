//! A stage as far as it is built: an image to be, which no name reaches yet.

use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;

use super::BuildError;
use super::arguments::Arguments;
use super::digest::Fields;
use super::source::Source;
use crate::layer::merged::Image;
use crate::oci::config::Step;
use crate::oci::{
    Descriptor, DiffId, Digest, ImageConfig, ImageId, MediaType, Platform, RunConfig,
};
use crate::store::{ImageRecord, Store};

/// A stage in the making, or made.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// Its configuration document; `None`: nothing was done on top of nothing yet.
    pub config: Option<Arc<ImageConfig>>,
    /// What it is for.
    pub platform: Platform,
    /// How its image will run.
    pub run: RunConfig,
    /// Bottom first.
    pub layers: Vec<DiffId>,
    /// MAINTAINER.
    pub author: String,
    /// ARG.
    pub arguments: Arguments,
    /// CMD was set here, not by the base.
    pub cmd_set: bool,
    /// The local image it began with.
    pub base: Option<ImageId>,
    /// Steps done on top of the base.
    pub steps: usize,
}

impl State {
    /// On top of nothing.
    pub(super) fn scratch(platform: Platform) -> State {
        State {
            config: None,
            platform,
            run: RunConfig::default(),
            layers: Vec::new(),
            author: String::new(),
            arguments: Arguments::default(),
            cmd_set: false,
            base: None,
            steps: 0,
        }
    }

    /// On top of an image.
    pub(super) fn of_image(config: Arc<ImageConfig>) -> State {
        State {
            platform: config.platform.clone(),
            run: config.run.clone(),
            layers: config.diff_ids.clone(),
            base: Some(config.id),
            config: Some(config),
            ..State::scratch(Platform::host())
        }
    }

    /// On top of another stage.
    pub(super) fn of_stage(stage: &State) -> State {
        State {
            arguments: Arguments::default(),
            cmd_set: false,
            ..stage.clone()
        }
    }

    /// What its image would be called now.
    pub(super) fn id(&self) -> Option<ImageId> {
        self.config.as_ref().map(|config| config.id)
    }

    /// One step more: the configuration and, if there is one, the layer.
    pub(super) fn advance(
        &mut self,
        created: Timestamp,
        created_by: &str,
        layer: Option<DiffId>,
    ) -> Result<(), BuildError> {
        let base = match &self.config {
            Some(config) => Ok(&**config),
            None => Err(&self.platform),
        };
        let step = Step {
            created,
            author: &self.author,
            comment: "",
            created_by,
            layer,
            run: &self.run,
        };
        let config = ImageConfig::child(base, &step)?;
        self.layers.extend(layer);
        self.config = Some(Arc::new(config));
        self.steps += 1;
        Ok(())
    }

    /// Its tree.
    pub(super) fn tree(&self, store: &Store) -> Result<Source, BuildError> {
        let layers = self.layers.iter().map(|layer| store.open_layer(layer));
        let image = Image::new(layers.collect::<Result<_, _>>()?)?;
        Ok(Source::Image(Arc::new(image)))
    }

    /// The digest of its layers and what it is for.
    pub(super) fn chain(&self) -> Digest {
        let layers: Vec<String> = self.layers.iter().map(DiffId::hex).collect();
        let mut fields = Fields::default();
        fields.add(self.platform.to_string().as_bytes());
        fields.list(&layers).finish()
    }

    /// A record for who serves its tree: that of an image nobody can name.
    pub(super) fn record(&self) -> ImageRecord {
        record(
            self.id().unwrap_or(ImageId(self.chain())),
            self.layers.clone(),
        )
    }
}

/// A record of layers that are no image.
pub(super) fn record(id: ImageId, layers: Vec<DiffId>) -> ImageRecord {
    ImageRecord {
        id,
        manifest: Descriptor {
            media_type: MediaType::oci_manifest(),
            digest: id.0,
            size: 0,
            platform: None,
            annotations: Default::default(),
        },
        layers,
        created: None,
        size: 0,
        added: SystemTime::UNIX_EPOCH,
        origins: Vec::new(),
        parent: None,
        tags: Default::default(),
    }
}
