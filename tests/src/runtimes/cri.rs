//! Kubernetes' side of containerd, the CRI, as a kubelet speaks it. Of the protocol this has the few fields that it needs,
//! written by hand into gRPC's frame; curl carries them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Containerd;
use super::image::BUSYBOX;
use crate::place::Place;

/// What containerd needs to be told for the lab: netd's plugins, an image for the pods themselves, and no controllers.
pub const SETTINGS: &str = r#"
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/busybox:latest"
  disable_cgroup = true
  disable_apparmor = true
  restrict_oom_score_adj = true
"#;

pub struct Cri<'a>(pub &'a Containerd<'a>);

/// A pod that runs, and what it was made from.
pub struct Pod {
    pub id: String,
    config: Message,
}

impl Cri<'_> {
    /// `ports` are pairs of the pod's and the host's.
    pub fn run_pod(&self, name: &str, ports: &[(u64, u64)]) -> Result<Pod> {
        let metadata = Message::default().text(1, name).text(2, &format!("uid-{name}")).text(3, "default");
        let dns = Message::default().text(1, "127.0.0.11");
        let mut config =
            Message::default().part(1, &metadata).text(2, name).text(3, "/run/lab/pods").part(4, &dns);
        for (own, host) in ports {
            config = config.part(5, &Message::default().number(2, *own).number(3, *host));
        }
        let config = config.part(8, &Message::default());
        let id = self.call("RunPodSandbox", &Message::default().part(1, &config))?;
        Ok(Pod { id: first_id(&id).context("the answer has the pod's id")?, config })
    }

    /// A container of the pod.
    pub fn run(&self, pod: &Pod, name: &str, command: &str) -> Result<String> {
        let mut config = Message::default()
            .part(1, &Message::default().text(1, name))
            .part(2, &Message::default().text(1, BUSYBOX))
            .text(11, &format!("{name}.log"));
        for word in command.split(' ') {
            config = config.text(3, word);
        }
        let request = Message::default().text(1, &pod.id).part(2, &config).part(3, &pod.config);
        let id = first_id(&self.call("CreateContainer", &request)?)
            .context("the answer has the container's id")?;
        self.call("StartContainer", &Message::default().text(1, &id))?;
        Ok(id)
    }

    /// What the command prints in a container.
    pub fn exec(&self, container: &str, command: &str) -> Result<String> {
        let request = command
            .split(' ')
            .fold(Message::default().text(1, container), |request, word| request.text(2, word));
        self.call("ExecSync", &request.number(3, 10))
    }

    pub fn status(&self, pod: &Pod) -> Result<String> {
        self.call("PodSandboxStatus", &Message::default().text(1, &pod.id))
    }

    pub fn stop(&self, pod: &Pod) -> Result<()> {
        self.call("StopPodSandbox", &Message::default().text(1, &pod.id)).map(drop)
    }

    pub fn remove(&self, pod: &Pod) -> Result<()> {
        self.call("RemovePodSandbox", &Message::default().text(1, &pod.id)).map(drop)
    }

    /// Whether both the runtime and its network say that they are ready.
    pub fn is_ready(&self) -> Result<()> {
        let said = self.call("Status", &Message::default())?;
        // A condition is its name and then, as field 2, whether it holds.
        ensure!(said.contains("NetworkReady\u{10}\u{1}"), "{said:?}");
        Ok(())
    }

    pub fn inside(&self, pod: &Pod) -> Result<Place> {
        self.0.inside_of("k8s.io", &pod.id)
    }

    /// The answer as text: ids, addresses and output are read from between its numbers.
    fn call(&self, method: &str, message: &Message) -> Result<String> {
        let length = u32::try_from(message.0.len())?.to_be_bytes();
        let frame = [&[0][..], &length, &message.0].concat();
        let line = format!(
            "curl -sSv --max-time 30 --http2-prior-knowledge --unix-socket /run/containerd/containerd.sock \
             -H 'content-type: application/grpc' -H 'te: trailers' --data-binary @- \
             http://localhost/runtime.v1.RuntimeService/{method}"
        );
        let done = self.0.place.run_with(&line, &frame, PATIENCE)?.success()?;
        ensure!(done.stderr.contains("< grpc-status: 0"), "{method}: {}", done.stderr);
        Ok(done.stdout)
    }
}

/// 64 hexadecimal digits in a row.
fn first_id(answer: &str) -> Option<String> {
    let mut words = answer.split(|c: char| !c.is_ascii_hexdigit()).map(str::trim);
    // The byte before an id is its length, 64, which is the letter `@`.
    words.find(|word| word.len() == 64).map(str::to_owned)
}

/// A message of protocol buffers.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn part(self, field: u64, part: &Self) -> Self {
        self.bytes(field, &part.0)
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

const PATIENCE: Duration = Duration::from_secs(40);

#[cfg(test)]
mod tests {
    use super::{Message, first_id};

    #[test]
    fn messages_are_as_protocol_buffers_have_them() {
        let message = Message::default().number(1, 300).part(2, &Message::default().text(1, "a"));
        assert_eq!(message.0, [0x08, 0xac, 0x02, 0x12, 0x03, 0x0a, 0x01, b'a']);
    }

    #[test]
    fn an_id_is_found_behind_its_length() {
        let id = "0a".repeat(32);
        assert_eq!(first_id(&format!("\0\0\0\0B\n@{id}")), Some(id));
    }
}
