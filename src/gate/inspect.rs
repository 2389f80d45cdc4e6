//! Server frames: pages of definitions, digested and filtered.
