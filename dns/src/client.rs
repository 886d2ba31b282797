//! Who asks: the view that a query belongs to, and the way its answer takes.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use netd_sys::datagram::Local;
use tokio::sync::mpsc;

use crate::index::ViewKey;
use crate::readable::Readable;
use crate::table::ViewId;
use crate::target::Target;

/// What the tasks of one view share.
pub(crate) struct ViewState {
    pub(crate) id: ViewId,
    pub(crate) key: ViewKey,
    pub(crate) target: RefCell<Option<Rc<Target>>>,
    pub(crate) connections: Cell<usize>,
    /// Of the waiting clients, those of this view.
    pub(crate) waiting: Cell<usize>,
}

/// Where an answer goes that takes a while.
pub(crate) struct Client {
    pub(crate) view: Rc<ViewState>,
    pub(crate) way: Way,
}

pub(crate) enum Way {
    Datagram { port: Rc<Readable>, to: SocketAddr, from: Option<Local> },
    Stream(mpsc::Sender<Vec<u8>>),
}

impl ViewState {
    pub(crate) fn new(id: ViewId, key: ViewKey) -> Self {
        Self { id, key, target: RefCell::new(None), connections: Cell::new(0), waiting: Cell::new(0) }
    }
}

/// Where a query came from.
pub(crate) struct Origin<'a> {
    pub(crate) view: &'a Rc<ViewState>,
    pub(crate) way: OriginWay<'a>,
}

pub(crate) enum OriginWay<'a> {
    Datagram { port: &'a Rc<Readable>, to: SocketAddr, from: Option<Local> },
    Stream(&'a mpsc::Sender<Vec<u8>>),
}

impl Origin<'_> {
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.way, OriginWay::Stream(_))
    }

    pub(crate) fn to_client(&self) -> Client {
        let way = match self.way {
            OriginWay::Datagram { port, to, from } => Way::Datagram { port: port.clone(), to, from },
            OriginWay::Stream(answers) => Way::Stream(answers.clone()),
        };
        Client { view: self.view.clone(), way }
    }
}
