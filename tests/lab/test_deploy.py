"""Another site on a lab that is up, and its own again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.support.site import OWN, VIPS, WEB, ask, contents, page
from topology.lab import deploy
from topology.lab.docker_lab import DockerLab


def another(place: Path) -> Path:
    """A site that has a page more, one less and one that is another."""
    shutil.copytree(OWN, place)
    (place / "extra.html").write_text("more")
    (place / "rules.html").unlink()
    (place / "news.html").write_text("no news")
    return place


def test_a_site_is_deployed_to_all_real_servers_and_the_labs_own_comes_back(lab: DockerLab, tmp_path: Path) -> None:
    lab.wait_healthy()
    own = contents(lab)
    assert len(own) == 1
    with deploy.sites(lab) as put:
        put(another(tmp_path / "new"))
        (there,) = contents(lab)
        assert "extra.html" in there
        assert "rules.html" not in there
        put(None)
        assert contents(lab) == own
        put(tmp_path / "new")
        changed = ask(lab, VIPS[0], "/article.php", article=1, text="of the new site", op="test-deploy-1")
        assert (changed["status"], changed["version"]) == (200, 1)
    assert contents(lab) == own
    assert not lab.node("web-1").exec("ls", deploy.KEPT).ok
    lab.wait_healthy()


def test_two_sites_whose_files_have_the_same_dates_are_two(lab: DockerLab, tmp_path: Path) -> None:
    """As two checkouts of one second have; PHP would go on with the script that it knows."""
    lab.wait_healthy()
    for name in ("one", "two"):
        shutil.copytree(OWN, tmp_path / name)
        version = tmp_path / name / "version.php"
        version.write_text(f"<?php echo '{name}';")
        os.utime(version, (1_700_000_000, 1_700_000_000))
    with deploy.sites(lab) as put:
        for name in ("one", "two", "one"):
            put(tmp_path / name)
            assert {node: page(lab, node, "/version.php") for node in WEB} == dict.fromkeys(WEB, name)


def test_what_a_killed_process_deployed_is_taken_back_by_the_next(lab: DockerLab, tmp_path: Path) -> None:
    lab.wait_healthy()
    own = contents(lab)
    killed = deploy.sites(lab)
    killed.__enter__()(another(tmp_path / "new"))
    assert contents(lab) != own
    with deploy.sites(lab) as put:
        put(None)
        assert contents(lab) == own
    assert contents(lab) == own
