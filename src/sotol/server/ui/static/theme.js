// Sets the theme before anything is painted: "light", "dark", or what the system says.
"use strict";
{
  let theme = null;
  try {
    theme = localStorage.getItem("sotol.theme");
  } catch {} // storage may be forbidden
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}
