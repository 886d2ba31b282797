//! Sandboxes whose namespace somebody else has made, and taken away without a word: a runtime that was killed, one that
//! never says it, a machine that was started anew. What they held is freed.

use std::collections::BTreeSet;
use std::sync::Arc;

use netd_api::Code;

use super::World;
use super::sandbox::take_down;
use crate::error::{Chain, Fault, Result};
use crate::guests::{self, Guest, look, sharers};
use crate::model::{Id, Sandbox};

/// All, or those with these ids.
pub(crate) fn list(world: &World, only: Option<&BTreeSet<Id>>) -> Vec<Guest> {
    let model = world.model();
    match only {
        None => model.sandboxes.values().filter_map(|sandbox| Guest::of(sandbox, model)).collect(),
        Some(ids) => ids.iter().filter_map(|id| Guest::of(model.sandboxes.get(id)?, model)).collect(),
    }
}

/// Removes those that a look has found dead, unless they are others by now. How many.
pub(crate) fn bury(world: &mut World, dead: &[Guest]) -> usize {
    let is_meant = |sandbox: &Sandbox, guest: &Guest| {
        sandbox.netns == guest.path
            && sandbox.netns_identity == guest.netns
            && sandbox.netns_cookie == guest.cookie
            && sandbox.boot == guest.boot
    };
    let mut buried = 0;
    for guest in dead {
        let found = world.model().sandboxes.get(&guest.id).filter(|sandbox| is_meant(sandbox, guest));
        let Some(sandbox) = found.cloned() else { continue };
        let path = guest.path.display();
        tracing::info!(sandbox = %sandbox.name, owner = %sandbox.owner, %path, "its namespace is gone: removing it");
        let with: Vec<Arc<Sandbox>> = sharers(&sandbox, world.model()).cloned().collect();
        for one in with.iter().chain([&sandbox]) {
            match take_down(world, one) {
                Ok(errors) if errors.is_empty() => {}
                Ok(errors) => {
                    tracing::warn!(sandbox = %one.name, left = errors.join("; "), "something is left of it");
                }
                Err(error) => {
                    tracing::error!(sandbox = %one.name, error = %Chain(&error), "cannot remove it");
                }
            }
        }
        buried += 1;
    }
    buried
}

/// Looks at all whose path leads elsewhere now, and removes the dead. How many.
pub(super) fn bury_all(world: &mut World) -> usize {
    let boot = guests::boot();
    let mut missing = list(world, None);
    missing.retain(|guest| !guest.is_in_place(&boot));
    let dead: Vec<Guest> =
        look(missing).into_iter().filter(|(_, anchor)| anchor.is_none()).map(|(guest, _)| guest).collect();
    bury(world, &dead)
}

/// A deed that something is in the way of is tried once more if what is in the way may have been dead: whoever watches
/// for that comes a moment later.
pub(super) fn without_the_dead<T>(
    world: &mut World,
    mut deed: impl FnMut(&mut World) -> Result<T>,
) -> Result<T> {
    match deed(world) {
        Err(Fault(error))
            if matches!(error.code, Code::Conflict | Code::Exhausted) && bury_all(world) > 0 =>
        {
            deed(world)
        }
        done => done,
    }
}
