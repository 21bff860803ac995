"""Alembic's migrations of the store's database; `penstock.store.migrate` runs them."""
