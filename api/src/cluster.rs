//! The cluster as a whole: restore.

use crate::error::Code;
use crate::verb::{Answer, Method, Nothing, Verb};

pub struct Restore;

impl Verb for Restore {
    const ID: &'static str = "cluster.restore";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/cluster/restore";
    const SUMMARY: &'static str = "Write what this node knows of the cluster into an etcd that has lost it";
    const ANSWER: Answer = Answer::Nothing;
    const ERRORS: &'static [Code] = &[Code::Invalid, Code::Conflict];
    type Params = Nothing;
    type Body = Nothing;
    type Response = Nothing;
}
