"""What keeps people from using a page, as axe-core finds it."""

from axe_playwright_python.sync_playwright import Axe


def serious(page):
    """The serious and critical findings on a page as it stands: rule and element."""
    found = Axe().run(page).response["violations"]
    return [
        (rule["id"], node["html"])
        for rule in found
        if rule["impact"] in {"serious", "critical"}
        for node in rule["nodes"]
    ]
