"""Clients for applications on the device: one that blocks, one for asyncio."""

from edge_agent.client.asynchronous import AsyncAgentClient
from edge_agent.client.blocking import AgentClient

__all__ = ["AgentClient", "AsyncAgentClient"]
