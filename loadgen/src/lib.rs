//! The load generator: workload, schedule, phases, campaign over rows.
