"""The page in a real browser: a whole tiny video."""

import pytest

from tests.conftest import REFS
from tests.server.browser import browser
from tests.server.conftest import live


@pytest.mark.slow
def test_a_whole_video_through_the_page(tmp_path):
    small = ("--height", "32", "--width", "48", "--num_inference_steps", "30", "--preview_every", "1")
    with live(tmp_path / "server", *small) as server, browser(tmp_path / "profile") as page:
        page.driver.get(server.url)
        button = "//button[normalize-space()='{}']"
        page.wait_for(lambda: page.find(button.format("Make")))
        page.driver.find_element("css selector", "input[type=file]").send_keys(str(REFS / "robot.png"))
        page.wait_for(lambda: page.find("//*[contains(text(), 'robot')]"))
        page.find("//label[.//span[normalize-space()='prompt']]//textarea")[0].send_keys("<b>it waves</b>")
        said = page.driver.find_element("css selector", "#said textarea")
        # The plan first, then a mistake, then the video.
        page.find(button.format("Plan"))[0].click()
        plan = page.wait_for(lambda: said.get_attribute("value"))
        assert "reference_to_video" in plan
        assert "48x32" in plan
        assert str(tmp_path) not in plan
        seed = page.find("//label[.//span[normalize-space()='seed']]//textarea")
        seed = (seed or page.find("//label[.//span[normalize-space()='seed']]//input"))[0]
        seed.send_keys("x")
        page.find(button.format("Make"))[0].click()
        page.wait_for(lambda: said.get_attribute("value").startswith("seed x: must be whole numbers"))
        seed.send_keys("\b5")
        page.find(button.format("Make"))[0].click()
        page.wait_for(lambda: said.get_attribute("value").startswith("queued: video_"))
        page.wait_for(lambda: page.find("//article//progress"))
        page.wait_for(lambda: page.find("//article//img[@alt='preview']"))
        # It is there, plays, and fits on a narrow screen.
        page.wait_for(lambda: page.find("//article[contains(@class, 'completed')]//video"))
        page.script("document.querySelector('article video').load()")
        page.script("document.querySelector('article video').play()")
        page.wait_for(lambda: page.script("document.querySelector('article video').videoWidth") == 48)
        assert "<b>it waves</b>" in page.find("//article/p")[0].text, "prompts are text, no HTML"
        for width in (400, 1400):
            page.resize(width)
            page.wait_for(lambda: page.find("//article"))
            assert page.script("document.documentElement.scrollWidth") <= width
            page.driver.save_screenshot(str(tmp_path / f"{width}.png"))
        page.find("//article//button[normalize-space()='Delete']")[0].click()
        page.wait_for(lambda: not page.find("//article"))
        assert server.http.get("/v1/videos").json()["data"] == []
        assert {url for url in page.requested() if not url.startswith(server.url)} == set()


@pytest.mark.slow
def test_what_is_done_stays_in_sight_beside_a_queue(tmp_path):
    """However low the window is."""
    text = {"task_type": "text_to_video"}
    with live(tmp_path / "server") as server, browser(tmp_path / "profile") as page:
        server.wait(server.create(**text)["id"], "completed")
        server.create(**text, num_inference_steps=400)
        page.resize(1400, 400)
        page.driver.get(server.url)
        page.wait_for(lambda: page.find("//h3[contains(text(), 'in the queue')]"))
        (done,) = page.wait_for(lambda: page.find("//h3[contains(text(), 'done')]"))
        assert done.rect["x"] + done.rect["width"] <= 1400
