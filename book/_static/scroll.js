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
  // a formula in a line scrolls only where it is wider than its paragraph
  const widen = () =>
    document.querySelectorAll(".bd-article mjx-container:not([display])").forEach((formula) => {
      const room = formula.closest("p, li, dd, td, div").clientWidth;
      const { width } = formula.querySelector("svg").getBoundingClientRect();
      formula.classList.toggle("wide", room > 0 && width > room);
    });
  const scrolled = (event) => mark(event.target);
  const watch = () => {
    widen();
    document
      .querySelectorAll(
        ".bd-article :is(pre, figure, .pst-scrollable-table-container, .table-scroll, mjx-container:is([display], .wide))",
      )
      .forEach((box) => {
        box.addEventListener("scroll", scrolled, { passive: true });
        resized.observe(box);
      });
  };
  // formulas are there once MathJax has set them
  addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    watch();
    addEventListener("resize", watch);
  });
})();
