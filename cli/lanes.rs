//! Where each row's requests go, and how they are encrypted.

use std::rc::Rc;

use tokenlag_loadgen::{BaseUrl, Endpoint, Lane};
use tokenlag_probes::{Row, Transport};

use crate::ends::Ends;
use crate::plan::Plan;

/// A lane for each row of the plan.
pub fn lanes(plan: &Plan, ends: &Ends) -> Vec<Rc<Lane>> {
    let rows = plan.work.rows.iter().enumerate();
    let lane = |(index, &row): (usize, &Row)| {
        Rc::new(Lane {
            row,
            index: index as u32,
            endpoint: endpoint(plan, row, ends),
        })
    };
    rows.map(lane).collect()
}

fn endpoint(plan: &Plan, row: Row, ends: &Ends) -> Endpoint {
    let to = |base: &BaseUrl| {
        let headers = plan.work.headers.clone();
        Endpoint::new(base, plan.work.dialect, headers, plan.work.limits)
            .stamped_by(plan.wire.stamp)
            // The leg of a pair is between its proxies: what is beside the first of them is not held back.
            .with_nagle(plan.wire.nagle && !row.transport.is_pair())
    };
    let Some(proxy) = ends
        .proxy
        .as_ref()
        .filter(|_| row.transport != Transport::Direct)
    else {
        let mut endpoint = to(&ends.backend);
        if let Some((host, port)) = ends.direct.clone() {
            endpoint = endpoint.at(host, port);
        }
        return match &ends.backend_trust {
            // Its certificate is for the name by which it is known, not for where the link ends.
            Some(trust) => endpoint.over_tls(trust.clone().naming(ends.backend.host())),
            None => endpoint,
        };
    };
    if let Some(sidecar) = ends.sidecars.iter().find(|it| it.is_for(row)) {
        return to(&sidecar.listen);
    }
    let at = proxy.reached_over(row.transport);
    let endpoint = to(&proxy.listen).at(at.host().to_owned(), at.port());
    match &proxy.trust {
        // Each row has a memory of its own: none resumes what another began.
        Some(trust) if plan.wire.dials_tls(row.transport) => {
            endpoint.over_tls(plan.wire.client(trust.forgetful()))
        }
        _ => endpoint,
    }
}
