use netd_dns::table::Name;
use proptest::prelude::*;

use super::*;

fn dns() -> impl Strategy<Value = Change> {
    let zone = "[ab]".prop_map(Arc::<str>::from);
    let name = "[xyz]".prop_map(Arc::<str>::from);
    prop_oneof![
        (zone.clone(), name.clone()).prop_map(|(zone, name)| {
            let name = Name { name, ..Name::default() };
            Change::Dns(Dns::PutName { zone, name })
        }),
        (zone.clone(), name).prop_map(|(zone, name)| Change::Dns(Dns::DropName { zone, name })),
        zone.clone().prop_map(|zone| Change::Dns(Dns::DropZone { zone })),
        zone.prop_map(|view| Change::Dns(Dns::DropView { view })),
    ]
}

fn proxy() -> impl Strategy<Value = Change> {
    let id = "[ab]".prop_map(Arc::<str>::from);
    prop_oneof![
        id.clone().prop_map(|service| Change::Proxy(Proxy::DropService { service })),
        id.clone().prop_map(|listener| Change::Proxy(Proxy::DropListener { listener })),
        id.clone().prop_map(|funnel| Change::Proxy(Proxy::DropFunnel { funnel })),
        id.clone().prop_map(|id| {
            let protocol = netd_proxy::table::Protocol::Udp;
            Change::Proxy(Proxy::PutFunnel(netd_proxy::table::Funnel { id, protocol }))
        }),
        id.prop_map(|id| {
            Change::Proxy(Proxy::PutListener(Listener {
                service: Arc::clone(&id),
                id,
                protocol: netd_proxy::table::Protocol::Tcp,
                address: ([127, 0, 0, 1], 80).into(),
                funnel: None,
                target_port: None,
                proxy_protocol: None,
                source: netd_proxy::table::Source::Own,
                limit: 1,
            }))
        }),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    proptest::collection::vec(prop_oneof![dns(), proxy()], 0..40)
}

fn after(changes: &[Change]) -> Known {
    let mut known = Known::default();
    changes.iter().for_each(|change| known.note(change));
    known
}

proptest! {
    /// A full set of tables leaves exactly what it put, whatever was there before.
    #[test]
    fn what_is_surplus_leads_from_anything_to_what_is_wanted(before in changes(), wanted in changes()) {
        let wanted: Vec<Change> = wanted.into_iter().filter(is_put).collect();
        let mut known = after(&before);
        wanted.iter().for_each(|change| known.note(change));
        for change in known.surplus(&after(&wanted)) {
            known.note(&change);
        }
        prop_assert_eq!(known, after(&wanted));
    }

    #[test]
    fn nothing_is_surplus_to_itself(changes in changes()) {
        let known = after(&changes);
        prop_assert_eq!(known.surplus(&known), Vec::new());
    }
}

fn is_put(change: &Change) -> bool {
    matches!(
        change,
        Change::Dns(Dns::PutName { .. } | Dns::PutView(_)) | Change::Proxy(Proxy::PutListener(_))
    )
}
