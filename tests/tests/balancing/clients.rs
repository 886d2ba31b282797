//! Whose address an application sees.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use netd_tests::backend::ask;
use netd_tests::load::Talk;
use netd_tests::{eventually, scenario};

use crate::balance::{client, stage};

#[test]
fn the_application_sees_the_clients_own_address() {
    scenario(|lab| {
        let (netd, clients, _backends, to) = stage(lab, "", 2)?;
        let answer = clients.enter(|| Talk::open(to, Some(client(7)), PATIENCE)?.say_and_close(1, 10))??;
        ensure!(answer.client.ip() == client(7).ip(), "{answer:?}");
        let local = ask(&netd.place, ([127, 0, 0, 1], 8080))?;
        ensure!(!local.client.ip().is_loopback(), "an address that answers come back to: {local:?}");
        for version in [1, 2] {
            netd.netd(&format!("service create told{version} --network app -p published=909{version},target=7001,proxy-protocol=v{version}"))?;
            let name = format!("told{version}-1");
            let flags = format!("--network app --service told{version}");
            let place = netd.create(&name, &flags)?;
            let _echo = netd.exec(&name, &format!("lab_echo --name {name} --proxy --tcp 7001"))?;
            drop(place);
            let to = SocketAddr::new(to.ip(), 9090 + version);
            let answer = eventually(PATIENCE, "it answers", || {
                Ok(clients.enter(|| Talk::open(to, Some(client(9)), PATIENCE)?.say_and_close(1, 10))??)
            })?;
            let told = answer.told.clone().with_context(|| format!("{answer:?}"))?;
            let (from, asked) = told.addresses.with_context(|| format!("{answer:?}"))?;
            ensure!(u16::from(told.version) == version && from == client(9) && asked == to, "{answer:?}");
        }
        Ok(())
    });
}

const PATIENCE: Duration = Duration::from_secs(5);
