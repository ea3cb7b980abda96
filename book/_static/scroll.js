// What is wider than its box fades at the edge behind which more lies, and the keyboard scrolls it.
(() => {
  const mark = (box) => {
    const hidden = box.scrollWidth - box.clientWidth;
    const scrolls = box.clientWidth > 0 && hidden > 1;
    box.classList.toggle("scrolls", scrolls);
    box.classList.toggle("more-left", scrolls && box.scrollLeft > 1);
    box.classList.toggle("more-right", scrolls && box.scrollLeft < hidden - 1);
    if (scrolls) box.tabIndex = 0;
  };
  const resized = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target)));
  const watch = () =>
    document
      .querySelectorAll(
        ".bd-article :is(pre, .pst-scrollable-table-container, .table-scroll, mjx-container[display])",
      )
      .forEach((box) => {
        box.addEventListener("scroll", () => mark(box), { passive: true });
        resized.observe(box);
      });
  // formulas are there once MathJax has set them
  addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    watch();
  });
})();
