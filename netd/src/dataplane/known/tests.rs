use netd_dns::table::Name;
use proptest::prelude::*;

use super::*;

fn dns() -> impl Strategy<Value = Change> {
    let zone = "[ab]".prop_map(Arc::<str>::from);
    let name = "[xyz]".prop_map(Arc::<str>::from);
    prop_oneof![
        (zone.clone(), name.clone()).prop_map(|(zone, name)| {
            let name = Name { name, addresses: Vec::new(), primary_for: Vec::new() };
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
        id.prop_map(|id| {
            Change::Proxy(Proxy::PutListener(Listener {
                service: Arc::clone(&id),
                id,
                protocol: netd_proxy::table::Protocol::Tcp,
                address: ([127, 0, 0, 1], 80).into(),
                target_port: None,
                proxy_protocol: None,
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
    /// What a full set of tables leaves is exactly what it put, whatever was there before.
    #[test]
    fn surplus_leads_from_anything_to_what_is_wanted(before in changes(), wanted in changes()) {
        let wanted_known = after(&wanted);
        let mut known = after(&before);
        let surplus = known.surplus(&wanted_known);
        wanted.iter().filter(|change| is_put(change)).for_each(|change| known.note(change));
        let dropped = after(&wanted);
        surplus.iter().for_each(|change| known.note(change));
        // Drops inside of the full set are not sent by the control plane; what they would drop is surplus as well.
        for change in wanted.iter().filter(|change| !is_put(change)) {
            known.note(change);
        }
        prop_assert_eq!(known.surplus(&dropped), Vec::new());
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
