//! In the place of the systems whose client crates this build has left out.

use async_trait::async_trait;

use crate::referee::client::{Abilities, Promises, Running, System};
use crate::systems::Place;

struct LeftOut(String);

/// The system of that name, which cannot be started by this build.
pub fn system(name: &str, _two_phase: bool, _place: &Place) -> Box<dyn System> {
    Box::new(LeftOut(name.to_owned()))
}

#[async_trait]
impl System for LeftOut {
    fn name(&self) -> &str {
        &self.0
    }

    fn promises(&self) -> Promises {
        Promises::NONE
    }

    fn abilities(&self) -> Abilities {
        Abilities::NAMES
    }

    fn missing(&self) -> Option<String> {
        Some("this build has no client for it: cargo build --release --features rivals".to_owned())
    }

    async fn start(&self, _nodes: usize, _seed: u64) -> anyhow::Result<Box<dyn Running>> {
        anyhow::bail!("this build has no client for it")
    }
}
