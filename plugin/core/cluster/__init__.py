"""Joining, refusing and becoming equal again: how agents that did not know each other become one cluster.

Decides who may speak (`door`), what two that were apart exchange (`reunion`), and what people are told of peers
(`showing`). It owns no addresses, endpoints or members: those it asks the rooms below for.
"""
