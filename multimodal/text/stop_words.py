"""English words that say nothing about a picture's content, without apostrophes, as `Normaliser` produces them."""

from __future__ import annotations

ENGLISH = tuple(
    sorted(
        """
a about above after again against all also am an and any are arent as at be because been before being below between both but by can cannot
cant could couldnt did didnt do does doesnt doing done dont down during each etc few for from further had hadnt has hasnt have havent having
he hed her here heres hers herself hes him himself his how however hows i id ie if im in into is isnt it itll its itself ive just
lets many may me might mine more most much must my myself no nor not now of off often on once one only onto or other our ours ourselves out
over own per same shall she shes should shouldnt since so some still such than that thats the their theirs them themselves then
there theres these they theyd theyll theyre theyve this those though through thus to too under until unto up upon us very was wasnt we were
werent weve what whats when where which while who whom whose why will with within without wont would wouldnt yet you youd youll your youre
yours yourself yourselves youve
""".split()
    )
)
