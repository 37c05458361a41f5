"""Sites, tags and groups of devices."""

from collections.abc import Sequence

from fleet_client.transport import Calls, Json, part


class GroupCalls(Calls):
    """Sites, tags and groups of devices."""

    def label(
        self,
        query: str,
        *,
        site: str | None = None,
        retired: bool | None = None,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
    ) -> list[str]:
        """Set facts of every device that a query or a group's name means; their names."""
        body = {
            "query": query,
            "site": site,
            "retired": retired,
            "add_tags": list(add_tags),
            "remove_tags": list(remove_tags),
        }
        names: list[str] = self._post("device-labels", body)["items"]
        return names

    def groups(self) -> list[Json]:
        """List the saved queries over devices."""
        return self._items("groups")

    def group(self, name: str) -> Json:
        """Show a saved query and the devices that it means now."""
        return self._get(f"groups/{part(name)}")

    def save_group(self, name: str, query: str) -> Json:
        """Save a query under a name."""
        return self._put(f"groups/{part(name)}", {"query": query})

    def drop_group(self, name: str) -> None:
        """Remove a saved query."""
        self._delete(f"groups/{part(name)}")
