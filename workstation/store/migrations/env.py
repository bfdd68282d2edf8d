"""Run alembic's migrations on the connection that ``Database`` passes in."""

from __future__ import annotations

from alembic import context

from capsule_edge.workstation.store import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
context.run_migrations()
